"""One RabbitMQ node on loopback with an epmd of its own, started straight from the installed release."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import socket
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self
from urllib.parse import quote

from taskplatform.servers.configuration import CLEAN_ENVIRONMENT, shared_settings
from taskplatform.servers.errors import ServerError, ServerMissing
from taskplatform.servers.ports import free_ports, listens
from taskplatform.servers.process import Command, Process

_BIN_DIR = Path("/usr/lib/rabbitmq/bin")
_AMQP_GREETING = b"AMQP\x00\x00\x09\x01"
_HTTP_SECONDS = 60.0
_COMMAND_SECONDS = 120.0
_WATERMARK = "800MiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitPorts:
    """Every port that one node listens on."""

    amqp: int
    distribution: int
    management: int
    prometheus: int
    epmd: int

    @classmethod
    def free(cls, *, epmd: int | None = None) -> Self:
        """Return ports that are free now; nodes of one cluster share the `epmd` port of the first."""
        amqp, distribution, management, prometheus, own = free_ports(5)
        return cls(amqp=amqp, distribution=distribution, management=management, prometheus=prometheus, epmd=epmd or own)


class RabbitMQ:
    """A RabbitMQ node that keeps everything in `state_dir`.

    Nodes of one cluster share `state_dir` (which holds the cookie) and the epmd port, have different `index`es, and
    each is told the indexes of all, itself included, as `members`. The node that finds no epmd starts one, so the
    first to start should be the last to stop.
    """

    def __init__(
        self,
        state_dir: Path,
        ports: RabbitPorts | None = None,
        *,
        index: int = 1,
        members: tuple[int, ...] = (),
        bin_dir: Path = _BIN_DIR,
    ) -> None:
        _require(bin_dir)
        self.ports = ports or RabbitPorts.free()
        self.node = f"n{index}@localhost"
        self._state_dir = state_dir.absolute()
        self._dir = self._state_dir / f"n{index}"
        self._members = members
        self._bin_dir = bin_dir
        self._epmd: Process | None = None
        self.process = Process(
            Command(
                name=f"RabbitMQ {self.node} on port {self.ports.amqp}",
                argv=(str(bin_dir / "rabbitmq-server"),),
                log=self._dir / "server.log",
                env=self._environment(),
            )
        )

    def start(self, *, within_seconds: float = 120.0) -> None:
        """Start the node on the state that is there, and return when it speaks AMQP and can be administered.

        Raises ServerError with the end of its log.
        """
        self.begin()
        self.await_ready(within_seconds=within_seconds)

    def begin(self) -> None:
        """Start the node without waiting: nodes of one cluster wait for each other."""
        for folder in ("mnesia", "log"):
            (self._dir / folder).mkdir(parents=True, exist_ok=True)
        self._write_cookie()
        (self._dir / "enabled_plugins").write_text(shared_settings("rabbitmq/enabled_plugins"), encoding="utf-8")
        (self._dir / "advanced.config").write_text("[].\n", encoding="utf-8")
        (self._dir / "rabbitmq.conf").write_text(self._configuration(), encoding="utf-8")
        self._start_epmd()
        try:
            self.process.start()
        except BaseException:
            self._stop_epmd()
            raise

    def await_ready(self, *, within_seconds: float = 120.0) -> None:
        """Return when the node speaks AMQP and can be administered; raise ServerError with the end of its log."""
        try:
            self.process.await_ready(self._ready, within_seconds=within_seconds)
        except BaseException:
            self._stop_epmd()
            raise

    def stop(self) -> None:
        """Shut the node down cleanly, and its epmd with it."""
        self.process.stop(within_seconds=30.0)
        self._stop_epmd()

    def kill(self) -> None:
        """Kill the node at once; its epmd stays, as it would when a node crashes."""
        self.process.kill()

    def restart(self) -> None:
        """Stop and start again, on the same ports and state."""
        self.stop()
        self.start()

    def amqp_url(self, vhost: str = "/") -> str:
        """Return the AMQP URL of a virtual host, for user guest."""
        return f"amqp://guest:guest@127.0.0.1:{self.ports.amqp}/{quote(vhost, safe='')}"

    @property
    def management_url(self) -> str:
        """The address of the management API; user and password are guest."""
        return f"http://127.0.0.1:{self.ports.management}"

    def add_vhost(self, name: str) -> str:
        """Create a virtual host that guest may do everything in, and return its AMQP URL; raise ServerError."""
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        try:
            self.manage("PUT", f"vhosts/{quote(name, safe='')}")
        except ServerError:
            # A busy cluster answers 500 when a node has not started it within ten seconds, and goes on with it.
            self.manage("PUT", f"vhosts/{quote(name, safe='')}")
        self.manage("PUT", f"permissions/{quote(name, safe='')}/guest", everything)
        return self.amqp_url(name)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all its queues and connections; raise ServerError."""
        self.manage("DELETE", f"vhosts/{quote(name, safe='')}")

    def manage(self, method: str, path: str, body: Mapping[str, object] | None = None) -> object:
        """Call the management API at `/api/<path>` and return its decoded answer, None if empty; raise ServerError."""
        headers = {"Authorization": f"Basic {b64encode(b'guest:guest').decode()}", "Content-Type": "application/json"}
        content = json.dumps(body or {}) if method in {"PUT", "POST"} else None
        connection = HTTPConnection("127.0.0.1", self.ports.management, timeout=_HTTP_SECONDS)
        try:
            connection.request(method, f"/api/{path}", content, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise ServerError(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise ServerError(f"{method} {path}: {answer.status} {text}")
        return json.loads(text) if text else None

    def set_memory_alarm(self, *, on: bool) -> None:
        """Raise or clear the memory alarm, which blocks every publisher of the node; takes seconds."""
        self.control("set_vm_memory_high_watermark", *(["0.000001"] if on else ["absolute", _WATERMARK]))

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on this node and return what it prints: slow, for what no API does; raise ServerError."""
        done = subprocess.run(
            [self._bin_dir / "rabbitmqctl", "-q", "-n", self.node, *arguments],
            env={**CLEAN_ENVIRONMENT, **self._environment()},
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"rabbitmqctl {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    @staticmethod
    def installed_version(bin_dir: Path = _BIN_DIR) -> str:
        """Return the name of the installed release, found without starting anything; raise ServerMissing."""
        _require(bin_dir)
        releases = sorted(path.name.partition("-")[2] for path in (bin_dir.parent / "lib").glob("rabbitmq_server-*"))
        return f"RabbitMQ {releases[-1]}" if releases else "RabbitMQ"

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self._state_dir),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.ports.amqp),
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "RABBITMQ_MNESIA_BASE": str(self._dir / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._dir / "log"),
            "RABBITMQ_PID_FILE": str(self._dir / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self._dir / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._dir / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._dir / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # Idle schedulers sleep instead of spinning: several nodes may share two cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none",
            # The start script then becomes the Erlang machine, in place of a shell that waits for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _configuration(self) -> str:
        own = {
            "listeners.tcp.default": f"127.0.0.1:{self.ports.amqp}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(self.ports.management),
            "prometheus.tcp.ip": "127.0.0.1",
            "prometheus.tcp.port": str(self.ports.prometheus),
            "vm_memory_high_watermark.absolute": _WATERMARK,
            "disk_free_limit.absolute": "200MB",
        }
        if self._members:
            own["cluster_formation.peer_discovery_backend"] = "classic_config"
        for member in self._members:
            own[f"cluster_formation.classic_config.nodes.{member}"] = f"n{member}@localhost"
        lines = [f"{name} = {value}" for name, value in own.items()]
        return "\n".join([shared_settings("rabbitmq/rabbitmq.conf"), *lines, ""])

    def _write_cookie(self) -> None:
        cookie = self._state_dir / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)

    def _start_epmd(self) -> None:
        if listens(self.ports.epmd):
            return
        self._epmd = Process(
            Command(
                name=f"epmd on port {self.ports.epmd}",
                argv=("epmd", "-port", str(self.ports.epmd), "-address", "127.0.0.1"),
                log=self._dir / "epmd.log",
                stop_signal=signal.SIGKILL,
            )
        )
        self._epmd.start(lambda: listens(self.ports.epmd))

    def _stop_epmd(self) -> None:
        if self._epmd is not None:
            self._epmd.stop()
            self._epmd = None

    def _ready(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.ports.amqp), timeout=2.0) as peer,
        ):
            peer.sendall(_AMQP_GREETING)
            return bool(peer.recv(1)) and listens(self.ports.management)
        return False


def _require(bin_dir: Path) -> None:
    if not (bin_dir / "rabbitmq-server").exists():
        raise ServerMissing(f"no RabbitMQ found in {bin_dir}")
