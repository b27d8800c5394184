"""Says no: every kind of problem that the API answers with (RFC 9457), and which error becomes which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from taskplatform import errors
from taskplatform.submission import InvalidArguments

CONTENT_TYPE: Final = b"application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of problem; a retryable one may pass when the same request comes again."""

    status: int
    title: str
    explained: str
    retryable: bool = False
    retry_after_seconds: int | None = None


def _bad(title: str, explained: str, status: int = 422) -> Kind:
    return Kind(status=status, title=title, explained=explained)


def _away(title: str, explained: str, seconds: int) -> Kind:
    return Kind(status=503, title=title, explained=explained, retryable=True, retry_after_seconds=seconds)


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "malformed_json": _bad("Malformed JSON", "The body is not JSON in UTF-8; `detail` names the byte.", 400),
        "malformed_http": _bad("Malformed request", "It is no HTTP, or a header says something that cannot be.", 400),
        "headers_too_large": _bad(
            "Headers too large", "The address and the headers have 64 KiB, and there are at most 200 of them.", 431
        ),
        "invalid_page_token": _bad(
            "Invalid page token", "The token is not ours, or belongs to a list with other filters.", 400
        ),
        "request_timeout": Kind(
            status=408,
            title="The request came too slowly",
            explained="The headers have ten seconds; so has the body, and one more for each KiB that came.",
            retryable=True,
        ),
        "body_too_large": _bad("Body too large", "The body, or the number of its items, is over the limit.", 413),
        "unsupported_media_type": _bad(
            "Unsupported media type", "Send `application/json`, without a content encoding.", 415
        ),
        "invalid_input": _bad("Invalid input", "A value has the wrong type or is out of range; `errors` says which."),
        "invalid_arguments": _bad(
            "Invalid arguments", "The task does not take these arguments; `errors` lists up to ten reasons."
        ),
        "unknown_task": _bad("Unknown task", "No worker ever announced a task of that name."),
        "unknown_pool": _bad("Unknown pool", "The pool does not exist; `detail` names those that do."),
        "invalid_idempotency_key": _bad("Invalid idempotency key", "A key is 1 to 255 visible ASCII characters."),
        "idempotency_key_reused": _bad(
            "Idempotency key reused", "The key names a job that was handed in with another body. Nothing was stored."
        ),
        "duplicate_key": _bad(
            "Repeated key", "A JSON object holds one key twice, which readers understand differently."
        ),
        "number_out_of_range": _bad(
            "Number out of range", "Integers have 64 bits, other numbers fit a double; NaN and Infinity are no JSON."
        ),
        "invalid_text": _bad("Invalid text", "Text must not hold U+0000 nor half a surrogate pair."),
        "string_too_long": _bad("String too long", "A string has at most 64 KiB."),
        "key_too_long": _bad("Key too long", "The key of an object has at most 256 bytes."),
        "too_deep": _bad("Nested too deeply", "JSON is nested at most 32 deep."),
        "too_many_values": _bad("Too many values", "A submission holds at most 10,000 values."),
        "too_many_keys": _bad("Too many keys", "A submission holds at most 1,000 keys."),
        "batch_rejected": _bad("Batch rejected", "No job of the batch was stored; each of `items` says why."),
        "search_too_slow": _bad("Search too slow", "The search takes too long; narrow it down."),
        "not_authenticated": _bad("Not authenticated", "Send `Authorization: Bearer tp_…` with a live API key.", 401),
        "not_allowed": _bad("Not allowed", "The API key lacks the scope that this call needs.", 403),
        "not_found": _bad("Not found", "There is no such thing, or none that this API key may see.", 404),
        "method_not_allowed": _bad("Method not allowed", "`Allow` names the methods of this address.", 405),
        "conflict": _bad("Conflict", "The state of things forbids it.", 409),
        "store_unavailable": _away("The store is away", "Postgres cannot be reached. Nothing happened.", 2),
        "shard_unavailable": _away(
            "A cluster is away",
            "One of the Postgres clusters cannot be reached; `detail` names it. What others keep is served.",
            2,
        ),
        "broker_unavailable": _away("The broker is away", "RabbitMQ cannot be reached. Nothing happened.", 2),
        "autoscaler_silent": _away("The autoscaler is silent", "No autoscaler has decided about this pool lately.", 5),
        "overloaded": _away("Overloaded", "More is waiting than can be taken on. Nothing happened.", 1),
        "outcome_unknown": _away(
            "The outcome is unknown",
            "The answer of the store was cut off. Send the same request with the same idempotency key: that is safe. "
            "Without a key it may create a second job.",
            1,
        ),
        "internal_error": Kind(
            status=500,
            title="Internal error",
            explained="Something unexpected happened, and the service's log says what. Repeat only with the same key.",
            retryable=True,
        ),
    }
)
"""Every kind by its `code`; the `type` of a problem is `/problems/<code>`, which explains it."""


class ProblemError(msgspec.Struct, frozen=True, gc=False):
    """One offending value: a JSON Pointer (RFC 6901) to it, and what is wrong with it."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True):
    """Why a request, or one item of it, was refused."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    errors: tuple[ProblemError, ...] | UnsetType = UNSET


def problem(code: str, detail: str | None = None, found: Sequence[tuple[str, str]] = ()) -> Problem:
    """Make a problem of a kind; `detail` defaults to what every problem of the kind has in common."""
    kind = KINDS[code]
    return Problem(
        type=f"/problems/{code}",
        title=kind.title,
        status=kind.status,
        detail=detail or kind.explained,
        code=code,
        retryable=kind.retryable,
        errors=tuple(ProblemError(pointer=pointer, detail=text) for pointer, text in found) or UNSET,
    )


def problem_of(error: Exception) -> Problem:
    """Say what an error means to the caller; what is not meant for one becomes `internal_error` without a word more."""
    match error:
        case InvalidArguments():
            return problem("invalid_arguments", error.detail, error.found)
        case errors.InvalidInput():
            code = error.code if error.code in KINDS else "invalid_input"
            found = ((error.pointer, error.detail),) if error.pointer else ()
            return problem(code, error.detail, found)
        case errors.NotFound():
            return problem("not_found")
        case errors.KeyReused():
            return problem("idempotency_key_reused")
        case errors.NotAuthenticated() | errors.NotAllowed() | errors.Conflict() | errors.ShardUnavailable():
            return problem(_CODES.get(type(error), _code_of_base(error)), str(error))
        case _:
            return problem(_CODES.get(type(error), _code_of_base(error)))


def headers_of(refusal: Problem) -> list[tuple[bytes, bytes]]:
    """Give the headers that go with a problem beside its content type."""
    headers: list[tuple[bytes, bytes]] = [(b"cache-control", b"no-store")]
    seconds = KINDS[refusal.code].retry_after_seconds
    if seconds is not None:
        headers.append((b"retry-after", str(seconds).encode()))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="taskplatform"'))
    if refusal.code in {"body_too_large", "request_timeout", "unsupported_media_type"}:
        # The rest of the body is not read.
        headers.append((b"connection", b"close"))
    return headers


_CODES: Mapping[type[Exception], str] = MappingProxyType(
    {
        errors.NotAuthenticated: "not_authenticated",
        errors.NotAllowed: "not_allowed",
        errors.Conflict: "conflict",
        errors.StoreUnavailable: "store_unavailable",
        errors.ShardUnavailable: "shard_unavailable",
        errors.BrokerUnavailable: "broker_unavailable",
        errors.AutoscalerSilent: "autoscaler_silent",
        errors.Overloaded: "overloaded",
        errors.OutcomeUnknown: "outcome_unknown",
    }
)


def _code_of_base(error: Exception) -> str:
    for known, code in _CODES.items():
        if isinstance(error, known):
            return code
    return "overloaded" if isinstance(error, errors.Unavailable) else "internal_error"
