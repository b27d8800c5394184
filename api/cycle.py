"""One request and its answer on a connection: the head of an answer and its body leave in one piece."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from api.exchange import SECURITY_HEADERS
from api.problems import CONTENT_TYPE, Problem, headers_of, problem
from api.views import encode

_NO_BODY = frozenset({204, 304})
CLOSE = (b"connection", b"close")
"""The header of an answer after which its connection ends."""


class Cycle(RequestResponseCycle):
    """As uvicorn's, with one write for an answer whose length is known: half the system calls, and one packet."""

    _head = b""

    async def send(self, message: Any) -> None:
        """Write a part of the answer."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._begin(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._continue(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} does not belong here")

    async def send_500_response(self) -> None:
        """Answer for an application that failed before it answered."""
        refusal = problem("internal_error")
        body = encode(refusal)
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": _headers(refusal, body)})
        await self.send({"type": "http.response.body", "body": body})

    def vanish(self) -> None:
        """Tell the application that its caller has left, and write nothing more of its answer."""
        self.disconnected = True
        self.message_event.set()

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        sent = [*self.default_headers, *headers]
        found = dict(sent)
        length = found.get(b"content-length")
        if b"close" in found.get(b"connection", b"").lower():
            self.keep_alive = False
        elif not self.keep_alive:
            sent.append(CLOSE)
        self.expected_content_length = int(length or 0)
        self.chunked_encoding = length is None and self.scope["method"] != "HEAD" and status not in _NO_BODY
        if self.chunked_encoding and b"transfer-encoding" not in found:
            sent.append((b"transfer-encoding", b"chunked"))
        self._head = written(status, sent)
        if self.chunked_encoding:
            # A stream: its first piece may be long in coming.
            self.transport.write(self._head)
            self._head = b""

    def _continue(self, body: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            piece = b""
        elif self.chunked_encoding:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                piece += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            piece = body
        if self.expected_content_length < 0 or (self.expected_content_length and not more):
            raise RuntimeError("the body is not as long as its Content-Length")
        head, self._head = self._head, b""
        if head or piece:
            self.transport.write(head + piece)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


def written(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write the head of an answer. Raises RuntimeError for a header that would end it early."""
    names, values = zip(*headers, strict=True)
    if HEADER_RE.search(b"".join(names)) or HEADER_VALUE_RE.search(b"".join(values)):
        raise RuntimeError("a header of the answer is malformed")
    lines = [b"%b: %b\r\n" % pair for pair in zip(names, values, strict=True)]
    return b"".join((STATUS_LINE[status], *lines, b"\r\n"))


def last_words(refusal: Problem, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write a whole answer for what is no request; the connection ends after it."""
    body = encode(refusal)
    return written(refusal.status, [*default_headers, *_headers(refusal, body), CLOSE]) + body


async def busy(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer, as an ASGI application, that this process has more requests than it takes on."""
    refusal = problem("overloaded")
    body = encode(refusal)
    await send({"type": "http.response.start", "status": refusal.status, "headers": [*_headers(refusal, body), CLOSE]})
    await send({"type": "http.response.body", "body": body})


def _headers(refusal: Problem, body: bytes) -> list[tuple[bytes, bytes]]:
    kind = (b"content-type", CONTENT_TYPE)
    length = (b"content-length", str(len(body)).encode())
    return [kind, length, *headers_of(refusal), *SECURITY_HEADERS]
