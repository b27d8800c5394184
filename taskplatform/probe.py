"""Answers Prometheus and health checks of a process over HTTP, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus

from taskplatform.telemetry import Metrics

REQUEST_SECONDS = 5.0
REQUEST_BYTES = 16_384

Ailments = Callable[[], list[str]]
"""Names what is wrong, a line each; an empty list is a clean bill of health. Does no input or output."""


def none() -> list[str]:
    """Find nothing wrong."""
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What each health page asks: does it need a restart (`live`), can it work (`ready`), has it begun (`started`)."""

    live: Ailments = none
    ready: Ailments = none
    started: Ailments = none


class Probe:
    """Serves `GET /metrics`, and `/livez`, `/readyz`, `/startupz`: nothing wrong is 200, anything is 503."""

    def __init__(self, metrics: Metrics, health: Health | None = None) -> None:
        self._metrics = metrics
        health = health or Health()
        self._pages = {"/livez": health.live, "/readyz": health.ready, "/startupz": health.started}

    @contextlib.asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen while the context lasts; gives the port, a free one for port 0. Raises OSError when it is taken."""
        server = await asyncio.start_server(self._answer, host, port, limit=REQUEST_BYTES)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                writer.write(self._response(method, target.partition("?")[0], _accepted(head)))
                await writer.drain()
        writer.close()

    def _response(self, method: str, path: str, accept: str) -> bytes:
        if method not in ("GET", "HEAD"):
            status, kind, body = HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET\n"
        elif path == "/metrics":
            status = HTTPStatus.OK
            body, kind = self._metrics.render(accept)
        elif path in self._pages:
            ailments = self._pages[path]()
            status = HTTPStatus.SERVICE_UNAVAILABLE if ailments else HTTPStatus.OK
            kind, body = "text/plain; charset=utf-8", ("\n".join(ailments or ["ok"]) + "\n").encode()
        else:
            pages = ", ".join(("/metrics", *self._pages))
            status, kind, body = HTTPStatus.NOT_FOUND, "text/plain", f"{pages}\n".encode()
        head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        return head.encode() + b"connection: close\r\n\r\n" + (b"" if method == "HEAD" else body)


def _accepted(head: bytes) -> str:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return ",".join(value.strip().decode("latin-1") for name, _, value in lines if name.lower() == b"accept")
