"""Messages: a job's envelope as a signed Celery message (protocol 2), and the check that every received one passes."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from taskplatform.errors import InvalidInput, TaskplatformError
from taskplatform.job import Envelope, Priority, Reason
from taskplatform.topology import work_queue

CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "utf-8"
SIGNATURE_HEADER = "tp-signature"
TRACE_HEADER = "traceparent"
VERSION_HEADER = "tp-version"
"""The version of the task, which is left out where it is 1."""
ORIGIN = "taskplatform"
"""What the platform's own publishers write into Celery's header `origin`."""

Kind = tuple[str, str, str, Priority, tuple[float | None, float | None], int | None, bool, int]
"""What the messages of jobs may have in common: all but id, body and trace."""

_SERIES_END = 2**31
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True, eq=False)
class Stamp:
    """What the messages of one kind of job share, made once: the first of their headers, and what is signed of them."""

    routing_key: str
    headers: Mapping[str, Any]
    signed: tuple[bytes, bytes]
    """What the signature covers before and after the id."""


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What goes to the broker: `routing_key` on the default exchange, a JSON `body`, Celery's `headers`.

    With a `stamp` the headers begin with those of the stamp.
    """

    id: str
    routing_key: str
    headers: Mapping[str, Any]
    body: bytes
    stamp: Stamp | None = None


class Unfit(TaskplatformError):
    """A received message is not one of ours, or not one that can be run; `reason` says why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def encode_body(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Write a job's arguments as the body of a Celery message (protocol 2)."""
    return msgspec.json.encode((args, kwargs, {})).decode()


def splice_body(args: str, kwargs: str) -> str:
    """Join the JSON texts of args and kwargs, as they were sent, into the body of a Celery message (protocol 2)."""
    return f"[{args},{kwargs},{{}}]"


def decode_body(body: str | bytes) -> tuple[list[Any], dict[str, Any]]:
    """Read args and kwargs back. Raises InvalidInput when the body is not Celery's triple."""
    try:
        args, kwargs, _ = _BODY.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"not a task body: {error}", code="malformed") from None
    return args, kwargs


def kind_of(envelope: Envelope) -> Kind:
    """Tell the kind of a job."""
    return (
        envelope.task,
        envelope.tenant,
        envelope.pool,
        envelope.priority,
        (envelope.hard_limit_seconds, envelope.soft_limit_seconds),
        envelope.series,
        envelope.suspect,
        envelope.task_version,
    )


def encode(envelope: Envelope, key: bytes) -> Message:
    """Make the signed message of a job."""
    stamp = stamp_of(kind_of(envelope))
    job_id = str(envelope.id)
    body = envelope.body.encode()
    headers: dict[str, Any] = {**stamp.headers, "id": job_id}
    if envelope.trace is not None:
        headers[TRACE_HEADER] = envelope.trace
    before, after = stamp.signed
    headers[SIGNATURE_HEADER] = seal(before + job_id.encode() + after, body, key)
    return Message(id=job_id, routing_key=stamp.routing_key, headers=headers, body=body, stamp=stamp)


def sign(headers: Mapping[str, Any], body: bytes, key: bytes) -> str:
    """Sign what decides about a message: HMAC-SHA256 (RFC 2104) over those headers and the SHA-256 of its body."""
    return seal(signed_text(headers), body, key)


def trace_of(header: object) -> str | None:
    """Give a W3C `traceparent` header back where it is one, None otherwise: nobody signs it."""
    return header if isinstance(header, str) and _TRACEPARENT.fullmatch(header) else None


def signed_text(headers: Mapping[str, Any]) -> bytes:
    """Write the headers that a signature covers."""
    return b"1" + msgspec.json.encode(_signed_values(headers))


def seal(text: bytes, body: bytes, key: bytes) -> str:
    """Sign the `signed_text` of a message's headers and its body."""
    inner, outer = (half.copy() for half in _halves(key))
    inner.update(text + hashlib.sha256(body).digest())
    outer.update(inner.digest())
    return "v1=" + outer.hexdigest()


def admit(
    headers: Mapping[str, Any],
    body: bytes,
    properties: Mapping[str, Any],
    keys: Sequence[bytes],
    *,
    allow_unsigned: bool,
) -> Envelope:
    """Check a received message and give its envelope.

    Nothing of the message is decompressed, unpickled or imported. A signature must fit one of `keys`; a message without
    one passes only where `allow_unsigned`. Raises Unfit.
    """
    check_content(headers, properties)
    if not allow_unsigned or headers.get(SIGNATURE_HEADER) is not None:
        check_signature(headers, body, keys, signed_text)
    return read(headers, body)


def check_content(headers: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
    """Check that a message says of its body that it is plain JSON. Raises Unfit."""
    if headers.get("compression"):
        raise Unfit(Reason.MALFORMED, "compressed messages are not taken")
    content_type = properties.get("content_type")
    if content_type != CONTENT_TYPE:
        raise Unfit(Reason.UNDECODABLE, f"content type {str(content_type)[:80]!r} is not {CONTENT_TYPE}")
    encoding = str(properties.get("content_encoding") or CONTENT_ENCODING).lower()
    if encoding not in ("utf-8", "utf8"):
        raise Unfit(Reason.UNDECODABLE, f"content encoding {encoding[:80]!r} is not {CONTENT_ENCODING}")


def check_signature(
    headers: Mapping[str, Any], body: bytes, keys: Sequence[bytes], text_of: Callable[[Mapping[str, Any]], bytes]
) -> None:
    """Check that a message is signed with one of `keys`; `text_of` writes the headers that are signed. Raises Unfit."""
    signature = headers.get(SIGNATURE_HEADER)
    if signature is None:
        raise Unfit(Reason.UNSIGNED, "the message carries no signature")
    try:
        given, text = str(signature).encode(), text_of(headers)
        fits = any(hmac.compare_digest(given, seal(text, body, key).encode()) for key in keys)
    except (TypeError, ValueError, RecursionError):
        # Nobody signs what has no JSON form.
        fits = False
    if not fits:
        raise Unfit(Reason.FORGED, "the signature does not fit the message")


def read(headers: Mapping[str, Any], body: bytes) -> Envelope:
    """Read the envelope of a message, whose content and signature are checked elsewhere. Raises Unfit."""
    try:
        decode_body(body)
        return _envelope(headers, body)
    except InvalidInput as error:
        undecodable = Reason.UNDECODABLE if _is_not_json(body) else Reason.MALFORMED
        raise Unfit(undecodable, error.detail) from None
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise Unfit(Reason.MALFORMED, f"a header is missing or malformed: {error}") from None


@lru_cache(maxsize=1024)
def stamp_of(kind: Kind) -> Stamp:
    """Make what the messages of one kind of job share. Raises InvalidInput where the kind has no queue."""
    task, tenant, pool, priority, limits, series, suspect, version = kind
    # What Celery assumes where nothing is said is left out: a header costs the broker more than its bytes.
    headers: dict[str, Any] = {
        "lang": "py",
        "task": task,
        "origin": ORIGIN,
        "tp-tenant": tenant,
        "tp-pool": pool,
        "tp-priority": str(priority),
        "tp-series": series,
    }
    if limits != (None, None):
        headers["timelimit"] = list(limits)
    if suspect:
        headers["tp-suspect"] = True
    if version > 1:
        headers[VERSION_HEADER] = version
    at = _SIGNED_HEADERS.index("id")
    values = _signed_values(headers)
    before, after = msgspec.json.encode(values[:at])[:-1], msgspec.json.encode(values[at + 1 :])[1:]
    signed = (b"1" + before + b',"', b'",' + after)
    return Stamp(work_queue(pool, priority), headers, signed)


_LONGEST_LIMIT_SECONDS = 366 * 86_400.0
_BLOCK_BYTES = hashlib.sha256().block_size
_BODY = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], dict[str, Any] | None])
_SIGNED_HEADERS = (
    "task",
    "id",
    "timelimit",
    "retries",
    "eta",
    "expires",
    "group",
    "tp-tenant",
    "tp-pool",
    "tp-priority",
    "tp-series",
    "tp-suspect",
)


def _signed_values(headers: Mapping[str, Any]) -> list[Any]:
    # Where nothing is said of a version nothing is signed of it, as before there were any.
    version = headers.get(VERSION_HEADER)
    return [*(headers.get(name) for name in _SIGNED_HEADERS), *(() if version is None else (version,))]


# Both hashes of HMAC (RFC 2104, section 2) with the key taken in: copies of them cost half of what those of hmac do.
@lru_cache(maxsize=16)
def _halves(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    block = (key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in block)), hashlib.sha256(bytes(byte ^ 0x5C for byte in block))


def _is_not_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return True
    return False


def _envelope(headers: Mapping[str, Any], body: bytes) -> Envelope:
    name = headers["task"]
    if not isinstance(name, str) or not name or len(name) > 255 or not name.isprintable():
        raise ValueError("task is not a name")
    tenant = headers.get("tp-tenant", "default")
    if not isinstance(tenant, str) or not tenant or len(tenant) > 255 or not tenant.isprintable():
        raise ValueError("tp-tenant is not a name")
    series = headers.get("tp-series")
    if series is not None and not (isinstance(series, int) and 0 <= series < _SERIES_END):
        raise ValueError("tp-series is not a number")
    pool, priority = str(headers.get("tp-pool", "default")), Priority(headers.get("tp-priority", Priority.NORMAL))
    work_queue(pool, priority)
    hard, soft = headers.get("timelimit") or (None, None)
    return Envelope(
        id=UUID(str(headers["id"])),
        task=name,
        body=body.decode(),
        tenant=tenant,
        pool=pool,
        priority=priority,
        series=series,
        suspect=bool(headers.get("tp-suspect", False)),
        task_version=_version(headers.get(VERSION_HEADER, 1)),
        soft_limit_seconds=_limit(soft),
        hard_limit_seconds=_limit(hard),
        trace=trace_of(headers.get(TRACE_HEADER)),
        due_at=_moment(headers, "eta"),
        expires_at=_moment(headers, "expires"),
    )


def _version(value: object) -> int:
    if not isinstance(value, int) or not 0 < value < _SERIES_END:
        raise ValueError("tp-version is not a number")
    return value


def _limit(value: Any) -> float | None:
    if value is None:
        return None
    seconds = float(value)
    if not 0 < seconds < _LONGEST_LIMIT_SECONDS:
        raise ValueError("timelimit is out of range")
    return seconds


def _moment(headers: Mapping[str, Any], name: str) -> datetime | None:
    text = headers.get(name)
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"{name} is not a date")
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
