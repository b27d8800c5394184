"""One request and its answer on bare ASGI: headers, bounded bodies, answers in one piece."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection

from starlette.types import Receive, Scope, Send

from api import problems
from api.views import encode
from taskplatform.errors import InvalidInput, TaskplatformError
from taskplatform.telemetry import logger

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers of every answer."""

_JSON = (b"content-type", b"application/json")
_log = logger("api")

Headers = list[tuple[bytes, bytes]]


class Exchange:
    """A request, and the way to answer it once; of headers with one name the last counts."""

    __slots__ = ("_receive", "_send", "headers", "query", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.query: bytes = scope["query_string"]
        self._receive = receive
        self._send = send

    async def body(self, limit: int, types: Collection[bytes]) -> bytes:
        """Read the body. Raises InvalidInput for one that is too large, encoded, or of another type."""
        self._check_type(types)
        length = self.headers.get(b"content-length", b"0")
        if len(length) > 18 or not length.isdigit():
            raise InvalidInput("Content-Length is no length", code="malformed_http")
        if int(length) > limit:
            raise _too_large(limit)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def answer(self, status: int, body: bytes, headers: Headers, *, kind: tuple[bytes, bytes] = _JSON) -> None:
        """Send the answer."""
        length = (b"content-length", str(len(body)).encode())
        await self._send({"type": "http.response.start", "status": status, "headers": [kind, length, *headers]})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: problems.Problem) -> None:
        """Send a problem as the answer."""
        kind = (b"content-type", problems.CONTENT_TYPE)
        await self.answer(refusal.status, encode(refusal), problems.headers_of(refusal), kind=kind)

    def check_headers(self) -> None:
        """Raise InvalidInput for a header that may come once only and came twice: which one is meant cannot be told."""
        sent = self.scope["headers"]
        if len(sent) == len(self.headers):
            return
        names = [name for name, _ in sent]
        if names.count(b"idempotency-key") > 1:
            raise InvalidInput("Idempotency-Key was sent twice", code="invalid_idempotency_key")
        if any(names.count(name) > 1 for name in _ONCE):
            raise InvalidInput("a header that may come once was sent twice", code="malformed_http")

    def _check_type(self, types: Collection[bytes]) -> None:
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise InvalidInput("encoded bodies are not taken", code="unsupported_media_type")
        declared = self.headers.get(b"content-type", b"")
        if declared not in types:
            kind, _, parameters = declared.lower().partition(b";")
            if kind.strip() not in types or not _UTF8.fullmatch(parameters.strip()):
                raise InvalidInput(
                    f"send {' or '.join(kind.decode() for kind in types)} in UTF-8", code="unsupported_media_type"
                )


class Gone(Exception):
    """The caller has left before the request was whole."""


class Endpoint:
    """An ASGI application that answers one route; whatever `handle` raises becomes a problem."""

    def __init__(self, route: str, handle: Callable[[Exchange], Awaitable[None]]) -> None:
        self._route = route
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["tp_route"] = self._route
        exchange = Exchange(scope, receive, send)
        try:
            exchange.check_headers()
            await self._handle(exchange)
        except Gone:
            return
        except TaskplatformError as error:
            await exchange.refuse(problems.problem_of(error))
        except Exception as error:  # noqa: BLE001  The caller gets an answer, the log the trace.
            _log.error("A request failed unexpectedly", route=self._route, exc_info=error)
            await exchange.refuse(problems.problem_of(error))


def wait_seconds(prefer: bytes | None, limit: float) -> int:
    """Read how long a caller would wait, from a Prefer header (RFC 7240), `limit` at most."""
    if prefer is None:
        return 0
    found = _WAIT.search(prefer)
    return min(int(found[1]), int(limit)) if found else 0


_ONCE = (b"authorization", b"content-type", b"content-encoding", b"content-length")
_UTF8 = re.compile(rb'(charset="?utf-?8"?)?;?')
_WAIT = re.compile(rb'(?:^|[,;\s])wait\s*=\s*"?(\d{1,9})(?=$|[",;\s])')


def _too_large(limit: int) -> InvalidInput:
    return InvalidInput(f"the body is larger than {limit} bytes", code="body_too_large")
