"""The connection of one caller: what comes too slowly or is no request is refused before anything is made of it."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.cycle import Cycle, busy, last_words
from api.problems import Problem, problem

HEADER_SECONDS = 10.0
HEADER_BYTES = 65_536
HEADERS = 200
BODY_SECONDS = 10.0
BODY_BYTES_PER_SECOND = 1024
_VERSIONS = frozenset({"1.0", "1.1"})


class _Stage(Enum):
    """What a connection waits for."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with bounds.

    The head of a request has HEADER_SECONDS, HEADER_BYTES and HEADERS; its body BODY_SECONDS, and a second more for
    every BODY_BYTES_PER_SECOND that came. What is refused here is answered with a problem, after the answers to the
    requests before it, and ends the connection.
    """

    cycle: Cycle
    _stage = _Stage.NOTHING
    _due: asyncio.TimerHandle | None = None
    _since = 0.0
    _unparsed_bytes = 0
    _header_bytes = 0
    _body_bytes = 0
    _trouble = "malformed_http"
    _refusal: Problem | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As uvicorn has it.
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes. Only a request that is not whole by then is waited for, so most need no timer."""
        if self._refusal is not None:
            return
        began_in_head = self._stage is _Stage.HEAD
        super().data_received(data)
        if self._stage is _Stage.NOTHING:
            self._wait_no_more()
        elif not self.transport.is_closing():
            if began_in_head and self._stage is _Stage.HEAD:
                self._unparsed_bytes += len(data)
                if self._unparsed_bytes > HEADER_BYTES:
                    self._refuse(problem("headers_too_large"))
                    return
            if self._due is None:
                self._wait()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser did not take, or took too much of."""
        del msg
        self._refuse(problem(self._trouble))

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._stage = _Stage.HEAD
        self._unparsed_bytes = self._header_bytes = self._body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the headers. Raises ValueError for too many, which ends the request."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_BYTES or len(self.headers) > HEADERS:
            self._trouble = "headers_too_large"
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """Begin the request. Raises ValueError for a version that is not spoken here, which ends it."""
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError(f"HTTP {version}")
        self._wait_no_more()
        self._stage = _Stage.BODY
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope: Any = self.scope
        scope["http_version"] = version
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        before = self._current
        self.cycle = self._new_cycle(keep_alive=version != "1.0" and self.parser.should_keep_alive())
        app: Any = busy if self._is_busy() else self.app
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, app)
        else:
            # Requests that came in one go are answered one after the other.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, app))

    def on_body(self, body: bytes) -> None:
        """Count the body."""
        super().on_body(body)
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """End a request; the next one may follow at once."""
        super().on_message_complete()
        self._stage = _Stage.NOTHING

    def on_response_complete(self) -> None:
        """Go on to the next request, or end a connection on which no request followed."""
        last = not self.pipeline
        super().on_response_complete()
        if last and self._refusal is not None:
            self._end(self._refusal)

    @property
    def _current(self) -> Cycle | None:
        return self.cycle

    def _new_cycle(self, *, keep_alive: bool) -> Cycle:
        return Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def _is_busy(self) -> bool:
        limit = self.limit_concurrency
        return limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit)

    def _refuse(self, refusal: Problem) -> None:
        self._wait_no_more()
        newest = self._current
        if newest is None or newest.response_complete:
            self._end(refusal)
        elif not newest.more_body or self.pipeline:
            # Others are answered first.
            self._refusal = refusal
            if newest.more_body:
                self.pipeline.popleft()
        else:
            newest.vanish()
            if newest.response_started:
                self.transport.close()
            else:
                self._end(refusal)

    def _end(self, refusal: Problem) -> None:
        if not self.transport.is_closing():
            self.transport.write(last_words(refusal, self.server_state.default_headers))
            self.transport.close()

    def _wait(self) -> None:
        self._since = self.loop.time()
        self._due = self.loop.call_later(BODY_SECONDS if self._stage is _Stage.BODY else HEADER_SECONDS, self._cut)

    def _wait_no_more(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _cut(self) -> None:
        self._due = None
        granted = BODY_SECONDS + self._body_bytes / BODY_BYTES_PER_SECOND if self._stage is _Stage.BODY else 0.0
        left = self._since + granted - self.loop.time()
        if self._stage is _Stage.NOTHING:
            self.transport.close()
        elif self.flow.read_paused:
            # It is we who do not read.
            self._wait()
        elif left > 0:
            self._due = self.loop.call_later(left, self._cut)
        else:
            self._refuse(problem("request_timeout"))
