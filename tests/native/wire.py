"""A cheap HTTP/1.1 client for load: one kept connection, and a clear line between not sent and cut off."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import msgspec

TIMEOUT_SECONDS = 15.0


class NotSent(Exception):
    """Nobody listens: the request never left, so nothing happened."""


class CutOff(Exception):
    """The request may have been carried out; no whole answer was read."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was read to its end; no other comes on the connection of the `last`."""

    status: int
    body: bytes
    retry_after_seconds: float = 0.0
    last: bool = False


@dataclass(slots=True)
class Connection:
    """One kept connection to an API, used by one task at a time; it opens itself when it is needed."""

    port: int
    key: str
    timeout_seconds: float = TIMEOUT_SECONDS
    _line: _Line | None = field(default=None, init=False)
    _heads: dict[tuple[str, str], bytes] = field(default_factory=dict, init=False)

    async def ask(self, method: str, path: str, body: bytes = b"", *, idempotency_key: str | None = None) -> Answer:
        """Send a request and read its answer. Raises NotSent and CutOff."""
        extra = f"Idempotency-Key: {idempotency_key}\r\n".encode() if idempotency_key else b""
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head(method, path), extra, len(body), body)
        try:
            line = self._line
            if line is None or line.ended:
                async with asyncio.timeout(self.timeout_seconds):
                    line = await self._open()
            answer = await line.ask(request, self.timeout_seconds)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise CutOff(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise
        if answer.last:
            self.close()
        return answer

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _head(self, method: str, path: str) -> bytes:
        head = self._heads.get((method, path))
        if head is None:
            head = self._heads[method, path] = (
                f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.key}\r\n"
                "Content-Type: application/json\r\n"
            ).encode()
        return head

    async def _open(self) -> _Line:
        self.close()
        loop = asyncio.get_running_loop()
        try:
            _, self._line = await loop.create_connection(lambda: _Line(loop), "127.0.0.1", self.port)
        except OSError as error:
            raise NotSent(str(error)) from error
        return self._line


class _Line(asyncio.Protocol):
    """A connection on which one answer is due at a time; what comes unasked ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended = False
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._due: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes, seconds: float) -> Answer:
        """Send a request, and wait so long for its answer. Raises OSError, EOFError and ValueError."""
        due: asyncio.Future[Answer] = self._loop.create_future()
        self._due = due
        overdue = self._loop.call_later(seconds, self._end, TimeoutError("no answer in time"))
        try:
            if self._transport is not None:
                self._transport.write(request)
            return await due
        finally:
            overdue.cancel()

    def close(self) -> None:
        """Drop it."""
        self.ended = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        due = self._due
        if due is None or due.done():
            self.ended = True
            return
        self._received += data
        try:
            answer = read_answer(self._received)
        except ValueError as error:
            self._end(error)
            return
        if answer is not None:
            self._received = b""
            due.set_result(answer)

    def eof_received(self) -> None:
        """See asyncio.Protocol."""
        self._end(EOFError("the connection ended"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end(exc or EOFError("the connection ended"))

    def _end(self, error: Exception) -> None:
        self.ended = True
        if self._due is not None and not self._due.done():
            self._due.set_exception(error)


def read_answer(received: bytes) -> Answer | None:
    """Read an answer, None where it is not whole yet. Raises ValueError for what is no answer, or more than one."""
    body_at = received.find(b"\r\n\r\n") + 4
    if body_at < 4:
        return None
    head = received[: body_at - 2].lower()
    end = body_at + int(_value(head, b"\r\ncontent-length:") or 0)
    if len(received) < end:
        return None
    if not head.startswith(b"http/1.") or len(received) > end:
        raise ValueError("this is not one answer")
    return Answer(
        status=int(head[9:12]),
        body=received[body_at:end],
        retry_after_seconds=float(_value(head, b"\r\nretry-after:") or 0),
        last=_value(head, b"\r\nconnection:") == b"close",
    )


def _value(head: bytes, name: bytes) -> bytes:
    begin = head.find(name)
    if begin < 0:
        return b""
    begin += len(name)
    return head[begin : head.index(b"\r\n", begin)].strip()
