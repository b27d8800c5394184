"""A cheap HTTP/1.1 client for load: one kept connection, and a clear line between not sent and cut off."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

TIMEOUT_SECONDS = 15.0


class NotSent(Exception):
    """Nobody listens: the request never left, so nothing happened."""


class CutOff(Exception):
    """The request may have been carried out; no whole answer was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that was read to its end."""

    status: int
    body: bytes
    retry_after_seconds: float = 0.0


@dataclass(slots=True)
class Connection:
    """One kept connection to an API, used by one task at a time; it opens itself when it is needed."""

    port: int
    key: str
    timeout_seconds: float = TIMEOUT_SECONDS
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, init=False)

    async def ask(self, method: str, path: str, body: bytes = b"", *, idempotency_key: str | None = None) -> Answer:
        """Send a request and read its answer. Raises NotSent and CutOff."""
        extra = f"Idempotency-Key: {idempotency_key}\r\n" if idempotency_key else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        )
        try:
            async with asyncio.timeout(self.timeout_seconds):
                reader, writer = await self._open()
                writer.write(head.encode() + body)
                answer, keeps = await _read(reader)
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
            self.close()
            raise CutOff(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise
        if not keeps:
            self.close()
        return answer

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
            except OSError as error:
                raise NotSent(str(error)) from error
        return self._streams


async def _read(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    answer = Answer(status=status, body=body, retry_after_seconds=float(headers.get("retry-after", 0)))
    return answer, headers.get("connection") != "close"
