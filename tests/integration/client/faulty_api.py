"""A small HTTP server that misbehaves on purpose, the way a network and a busy platform do."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JOB = {"id": "01890000-0000-7000-8000-000000000001", "task": "demo.add", "created_at": "2026-11-20T10:00:00Z"}


class Fault(StrEnum):
    """What becomes of one request; it was received whole in each case."""

    CUT = "the connection ends without an answer"
    CUT_IN_THE_MIDDLE = "the connection ends within the answer"
    SILENCE = "no answer ever comes"
    AWAY = "503 with Retry-After"
    LIMITED = "429 with Retry-After"
    PROXY_PAGE = "502 with Retry-After and a page of HTML"


_REFUSALS = {
    Fault.AWAY: (503, b'{"title": "away"}', "application/problem+json"),
    Fault.LIMITED: (429, b'{"title": "too fast"}', "application/problem+json"),
    Fault.PROXY_PAGE: (502, b"<html></html>", "text/html"),
}


@dataclass
class FaultyApi:
    """The server's script and its record; after the faults every request is answered properly.

    In a batch a job of the task `refused` is refused; one of the task `poison` has its whole request refused.
    """

    faults: list[Fault] = field(default_factory=list)
    job: dict[str, Any] = field(default_factory=lambda: {**JOB, "state": "succeeded", "result": 3})
    refused: str = ""
    poison: str = ""
    url: str = ""
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: FaultyApi) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def __getattr__(self, name: str) -> Any:
        if name in ("do_GET", "do_POST"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        api = self.server.api
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        api.keys.append(self.headers.get("Idempotency-Key"))
        api.paths.append(self.path)
        api.bodies.append(json.loads(body) if body else None)
        match api.faults.pop(0) if api.faults else None:
            case None if self._is_poisoned(api.bodies[-1]):
                self._answer(400, b'{"title": "too deep", "code": "too_deep"}', "application/problem+json")
            case None:
                self._answer(200, json.dumps(self._proper(api.bodies[-1])).encode())
            case Fault.AWAY | Fault.LIMITED | Fault.PROXY_PAGE as refusal:
                self._answer(*_REFUSALS[refusal], Retry_After="2")
            case fault:
                self._break(fault)

    def _break(self, fault: Fault) -> None:
        self.close_connection = True
        if fault is Fault.SILENCE:
            self.server.api.over.wait()
        if fault is Fault.CUT_IN_THE_MIDDLE:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": ')

    def _is_poisoned(self, body: Any) -> bool:
        return isinstance(body, list) and self.server.api.poison in [job["task"] for job in body]

    def _proper(self, body: Any) -> Any:
        if self.path == "/v1/jobs:batch":
            return {"items": [self._item(job) for job in body]}
        return self.server.api.job

    def _item(self, job: dict[str, Any]) -> dict[str, Any]:
        if job["task"] == self.server.api.refused:
            return {"status": 422, "problem": {"title": "no such task", "status": 422, "code": "unknown_task"}}
        return {"status": 202, "id": JOB["id"], "state": "queued"}

    def _answer(self, status: int, body: bytes, kind: str = "application/json", **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running(api: FaultyApi) -> Iterator[FaultyApi]:
    """Serve on a free port until the block ends."""
    server = _Server(api)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        api.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
