"""A container engine as far as the agent speaks to it: its paths over a real socket, containers that only stand."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Shelf:
    """The containers of an engine, and what was asked of it. While `let_stop` is not set nothing stops."""

    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    let_stop: threading.Event = field(default_factory=threading.Event)

    def put(self, service: str, *, project: str = "shop", number: int = 1, state: str = "running") -> str:
        """Stand a container on the shelf, as Compose would."""
        labels = {
            "com.docker.compose.project": project,
            "com.docker.compose.service": service,
            "com.docker.compose.container-number": str(number),
            "com.docker.compose.oneoff": "False",
        }
        config = {"Image": "taskplatform", "Cmd": ["worker"], "Env": ["A=b"], "Labels": labels, "User": "10001"}
        return self.make(config, {"ReadonlyRootfs": True}, "sha256:1", {"internal": {}, "edge": {}}, state)

    def make(self, config: Any, host: Any, image: str, networks: Any, state: str = "created") -> str:
        name = f"{len(self.containers) + 1:064x}"
        self.containers[name] = {
            "Id": name,
            "Image": image,
            "Config": {**config, "Hostname": name[:12]},
            "HostConfig": host,
            "NetworkSettings": {"Networks": networks},
            "State": {"Status": state, "StartedAt": "2026-01-01T00:00:00.123456789Z"},
        }
        return name

    def states(self) -> list[str]:
        return [one["State"]["Status"] for one in self.containers.values()]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        match method, path.strip("/").split("/"):
            case "GET", ["containers", "json"]:
                wanted = set(json.loads(query.get("filters", ['{"label": []}'])[0])["label"])
                return [_listed(one) for one in self.containers.values() if wanted <= _labels(one)]
            case "GET", ["containers", name, "json"]:
                return self.containers[name]
            case "POST", ["containers", "create"]:
                networks = body["NetworkingConfig"]["EndpointsConfig"]
                return {"Id": self.make(body, body["HostConfig"], body["Image"], networks)}
            case "POST", ["networks", network, "connect"]:
                self.containers[body["Container"]]["NetworkSettings"]["Networks"][network] = body["EndpointConfig"]
            case "POST", ["containers", name, "start"]:
                self.containers[name]["State"]["Status"] = "running"
            case "POST", ["containers", name, "stop"]:
                self.let_stop.wait(30)
                self.containers[name]["State"]["Status"] = "exited"
            case "DELETE", ["containers", name]:
                del self.containers[name]
            case _:
                raise KeyError(path)
        return None


def _labels(container: Any) -> set[str]:
    return {f"{key}={value}" for key, value in container["Config"]["Labels"].items()}


def _listed(container: Any) -> Any:
    state = container["State"]["Status"]
    return {"Id": container["Id"], "State": state, "Labels": container["Config"]["Labels"]}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(shelf: Shelf, path: Path) -> Iterator[None]:
    """Listen on a socket meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._do("GET")

        def do_POST(self) -> None:
            self._do("POST")

        def do_DELETE(self) -> None:
            self._do("DELETE")

        def _do(self, method: str) -> None:
            target = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            shelf.asked.append((method, self.path, body))
            try:
                answer, status = shelf.answer(method, target.path, parse_qs(target.query), body), 200
            except KeyError:
                answer, status = {"message": "no such thing"}, 404
            text = json.dumps(answer).encode() if answer is not None else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            pass

    with _Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
