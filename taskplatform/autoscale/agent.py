"""Holds the Docker socket for the autoscaler, and does three things with it: list, start one more, stop.

Whoever has the socket is root on the host. So this program is small, uses nothing but the standard library, knows one
Compose project and the services it was told, and starts nothing but copies of their containers.
"""

from __future__ import annotations

import hmac
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from taskplatform.errors import DriverUnavailable, InvalidInput
from taskplatform.telemetry import logger

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_NUMBER = "com.docker.compose.container-number"
_ONE_OFF = "com.docker.compose.oneoff"
_ALIVE = ("running", "restarting", "paused", "created")
_ENGINE_SECONDS = 30.0
_HEALTH_SECONDS = 2.0
_LONGEST_GRACE_SECONDS = 86_400.0
_BODY_BYTES = 4096
# What makes a container what it is; its name, address and host name are its own.
_COPIED = (
    *("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "Healthcheck", "StopSignal", "StopTimeout"),
    *("Volumes", "ExposedPorts", "Tty"),
)
_MEMBERS = re.compile(r"/v1/services/([a-z0-9][a-z0-9_.-]{0,62})/members(?:/([0-9a-f]{12,64})/stop)?")

_log = logger(__name__)


class Engine:
    """The API of a Docker engine behind its socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, method: str, target: str, body: Any = None, *, seconds: float = _ENGINE_SECONDS) -> Any:
        """Ask, and give the answer. Raises DriverUnavailable for any that is no success."""
        connection = _OverSocket(self._path, seconds)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise DriverUnavailable(f"the engine does not answer: {type(error).__name__}") from error
        finally:
            connection.close()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise DriverUnavailable(f"the engine answers {answer.status}: {text[:200].decode(errors='replace')}")
        return json.loads(text) if text else None


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("engine", timeout=seconds)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


@dataclass
class Agent:
    """The three verbs, for the `services` of one Compose `project`.

    `most` is the maximum of a pool. A service never has more than twice as many containers that have not ended: each of
    them may drain, or have fallen silent, while another takes its place.
    """

    engine: Engine
    project: str
    services: Collection[str]
    most: int
    _stopping: set[str] = field(default_factory=set)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def members(self, service: str) -> list[Mapping[str, Any]]:
        """Give the containers of a service that have not ended."""
        found = [self._inspect(one["Id"]) for one in self._containers(service) if one["State"] in _ALIVE]
        return [
            {
                "id": one["Id"],
                "host": one["Config"]["Hostname"],
                "age_seconds": max(time.time() - _began(one), 0.0),
                "draining": one["Id"] in self._stopping,
            }
            for one in found
        ]

    def start(self, service: str) -> str:
        """Start one more: one that has ended, or else a copy of one that runs; gives its id."""
        with self._starting:
            known = self._containers(service)
            if not known:
                raise DriverUnavailable(f"the service {service} has no container to start or to copy: compose up")
            alive = sum(one["State"] in _ALIVE for one in known)
            if alive >= 2 * self.most:
                raise DriverUnavailable(f"{alive} containers of {service} run: no more are allowed")
            ended = [one for one in known if one["State"] == "exited" and one["Id"] not in self._stopping]
            chosen = ended[0]["Id"] if ended else self._copy(self._inspect(known[0]["Id"]), service, known)
            self.engine.ask("POST", f"/containers/{chosen}/start")
        _log.info("Started a container", service=service, container=chosen[:12])
        return str(chosen)

    def stop(self, service: str, container: str, grace_seconds: float) -> None:
        """Begin to stop a container; it is removed once it has ended, unless it is the last that could be copied."""
        if container not in {one["Id"] for one in self._containers(service)}:
            raise InvalidInput(f"{service} has no container {container[:12]}")
        if container in self._stopping:
            return
        self._stopping.add(container)
        threading.Thread(target=self._stop, args=(service, container, grace_seconds), daemon=True).start()

    def _stop(self, service: str, container: str, grace_seconds: float) -> None:
        try:
            target = f"/containers/{container}/stop?t={int(grace_seconds)}"
            self.engine.ask("POST", target, seconds=grace_seconds + _ENGINE_SECONDS)
            with self._starting:
                if len(self._containers(service)) > 1:
                    self.engine.ask("DELETE", f"/containers/{container}")
            _log.info("Stopped a container", service=service, container=container[:12])
        except DriverUnavailable as error:
            _log.warning("A container could not be stopped", container=container[:12], trouble=str(error))
        finally:
            self._stopping.discard(container)

    def _containers(self, service: str) -> list[Any]:
        if service not in self.services:
            raise InvalidInput(f"{service} is none of the services {', '.join(sorted(self.services))}")
        labels = [f"{_PROJECT}={self.project}", f"{_SERVICE}={service}", f"{_ONE_OFF}=False"]
        filters = quote(json.dumps({"label": labels}))
        found: list[Any] = self.engine.ask("GET", f"/containers/json?all=true&filters={filters}")
        return found

    def _inspect(self, container: str) -> Any:
        return self.engine.ask("GET", f"/containers/{container}/json")

    def _copy(self, template: Any, service: str, known: Collection[Any]) -> str:
        taken = {one["Labels"].get(_NUMBER) for one in known}
        number = next(one for one in range(1, len(taken) + 2) if str(one) not in taken)
        settings = {key: template["Config"][key] for key in _COPIED if template["Config"].get(key) is not None}
        settings["Labels"] = {**settings["Labels"], _NUMBER: str(number)}
        networks = list(template["NetworkSettings"]["Networks"])
        body = {
            **settings,
            # The image as it runs, and not what its name means by now: a fleet has one version.
            "Image": template["Image"],
            "HostConfig": template["HostConfig"],
            "NetworkingConfig": {"EndpointsConfig": {name: {"Aliases": [service]} for name in networks[:1]}},
        }
        name = quote(f"{self.project}-{service}-{number}")
        made = self.engine.ask("POST", f"/containers/create?name={name}", body)["Id"]
        for network in networks[1:]:
            body = {"Container": made, "EndpointConfig": {"Aliases": [service]}}
            self.engine.ask("POST", f"/networks/{quote(network)}/connect", body)
        return str(made)


def serve(agent: Agent, token: str, host: str, port: int) -> ThreadingHTTPServer:
    """Make the server of an agent; `serve_forever` runs it. Raises OSError when it cannot listen."""
    handler = type("Handler", (_Handler,), {"agent": agent, "token": token})
    return ThreadingHTTPServer((host, port), handler)


class _Handler(BaseHTTPRequestHandler):
    agent: Agent
    token: str
    timeout = 30

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer_health()
        else:
            self._do(lambda service, _: {"members": self.agent.members(service)}, to_stop=False)

    def do_POST(self) -> None:
        if self.path.endswith("/stop"):
            self._do(self._stop, to_stop=True)
        else:
            self._do(lambda service, _: {"id": self.agent.start(service)}, to_stop=False)

    def _stop(self, service: str, container: str) -> Any:
        self.agent.stop(service, container, self._grace())
        return {"id": container}

    def _do(self, verb: Callable[[str, str], Any], *, to_stop: bool) -> None:
        sent = self.headers.get("Authorization", "").encode("latin-1")
        if not hmac.compare_digest(sent, f"Bearer {self.token}".encode()):
            self._answer(HTTPStatus.UNAUTHORIZED, {"error": "who are you?"})
            return
        found = _MEMBERS.fullmatch(self.path)
        if found is None or bool(found[2]) is not to_stop:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "list, start and stop are all there is"})
            return
        try:
            self._answer(HTTPStatus.OK, verb(found[1], found[2] or ""))
        except (InvalidInput, ValueError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except DriverUnavailable as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})

    def _answer_health(self) -> None:
        try:
            self.agent.engine.ask("GET", "/containers/json?limit=1", seconds=_HEALTH_SECONDS)
        except DriverUnavailable as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})
        else:
            self._answer(HTTPStatus.OK, {"status": "ok"})

    def _grace(self) -> float:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= _BODY_BYTES:
            raise InvalidInput("the body is too large")
        try:
            body = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError):
            body = None
        grace = body.get("grace_seconds") if isinstance(body, dict) else None
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= _LONGEST_GRACE_SECONDS:
            raise InvalidInput("grace_seconds is a number from 0 to a day")
        return grace

    def _answer(self, status: HTTPStatus, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        # What is no HTTP has no path.
        _log.debug("a request was answered", path=getattr(self, "path", None))


def _began(container: Any) -> float:
    if container["State"]["Status"] == "created":
        return time.time()
    # The engine writes nanoseconds, which Python does not read.
    text = re.sub(r"\.\d+", "", container["State"]["StartedAt"])
    return datetime.fromisoformat(text).timestamp()
