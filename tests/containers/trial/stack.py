"""The Compose platform of a trial: brought up from the files of compose/, looked at, hurt, and taken away again."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.containers.tools import ROOT, TOOLS
from tests.containers.trial.engine import Engine, run
from tests.containers.trial.fleet import Event
from tests.containers.trial.images import HERE, SERVERS, name_of

WORKERS = "worker-default"
MOST_WORKERS = 4
_COMPOSE = ROOT / "compose"
_FILES = (_COMPOSE / "compose.yaml", _COMPOSE / "compose.autoscale.yaml", HERE / "compose.trial.yaml")
_ACTIONS = ("start", "kill", "die")
_UP_SECONDS = 300.0
_PSQL = (
    "PGPASSWORD=$(cat /run/secrets/postgres_password) exec psql -h 127.0.0.1 -U taskplatform -X -q -v ON_ERROR_STOP=1"
)


@dataclass
class Stack:
    """One Compose project with secrets and a port of its own; `folder` is the trial's."""

    engine: Engine
    folder: Path
    project: str = field(default_factory=lambda: f"taskplatform-trial-{os.getpid()}")
    port: int = field(init=False)

    def __post_init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self.effects.mkdir()
        # The workers' account is none of this machine's.
        self.effects.chmod(0o777)
        run([str(_COMPOSE / "make-secrets"), str(self.folder / "secrets")], dict(os.environ), seconds=30.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "1", seconds=180.0)

    @property
    def effects(self) -> Path:
        """Where the jobs write down what they did."""
        return self.folder / "effects"

    @property
    def _events(self) -> Path:
        return self.folder / "events"

    @property
    def environment(self) -> dict[str, str]:
        """Give what the files of compose/ read from the environment."""
        images = {f"{server.upper()}_IMAGE": name_of(server) for server in SERVERS}
        return {
            **self.engine.environment,
            **images,
            "COMPOSE": _compose(),
            "COMPOSE_PROJECT_NAME": self.project,
            "CPUS": str(min(os.cpu_count() or 1, 2)),
            "DOCKER_GROUP": str(self.engine.socket.stat().st_gid),
            "DOCKER_SOCKET": str(self.engine.socket),
            "MAX_WORKERS": str(MOST_WORKERS),
            "TASKPLATFORM_IMAGE": name_of("jobs"),
            "TASKPLATFORM_PUBLISH": f"127.0.0.1:{self.port}",
            "TASKPLATFORM_SECRETS": str(self.folder / "secrets"),
            "TASKPLATFORM_TASK_MODULES": "trial_jobs",
            "TRIAL_EFFECTS": str(self.effects),
        }

    def up(self) -> None:
        """Start everything, and return when all of it is well. Raises CommandFailed."""
        self.compose("up", "--detach", "--no-build", "--wait", seconds=_UP_SECONDS)

    def status_of(self, path: str) -> int:
        """Ask the load balancer for a page, and give the status of the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def roll(self) -> None:
        """Replace every process of the platform as compose/roll does it. Raises CommandFailed."""
        run([str(_COMPOSE / "roll"), *_file_options()], self.environment, seconds=_UP_SECONDS)

    def new_key(self) -> str:
        """Make an API key."""
        made = self.compose("exec", "-T", "dispatcher", "taskplatform", "keys", "create", "--json")
        return str(json.loads(made)["key"])

    def compose(self, *arguments: str, seconds: float = 120.0) -> str:
        """Run Compose on this project. Raises CommandFailed."""
        return run([_compose(), *_file_options(), *arguments], self.environment, seconds=seconds)

    def containers(self, service: str) -> list[str]:
        """Give the ids of a service's containers that run."""
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}")
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return self.engine.docker("ps", "--quiet", "--no-trunc", *filters).split()

    def rows(self, query: str) -> list[list[str]]:
        """Ask the database. Raises CommandFailed."""
        copied = f"COPY ({query}) TO STDOUT (FORMAT csv)"
        text = self.compose("exec", "-T", "postgres", "sh", "-c", f'{_PSQL} -c "{copied}"')
        return list(csv.reader(io.StringIO(text)))

    @contextmanager
    def events_noted(self, service: str) -> Iterator[None]:
        """Note what becomes of a service's containers while a block runs: the engine itself remembers few events."""
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}")
        filters = (*(f"event={action}" for action in _ACTIONS), *(f"label={label}" for label in labels))
        command = [
            *("docker", "events", "--format", "{{.ID}} {{.Action}} {{.Actor.Attributes.exitCode}}"),
            *(word for one in filters for word in ("--filter", one)),
        ]
        with self._events.open("w") as noted:
            watcher = subprocess.Popen(command, env=self.environment, stdout=noted)
            try:
                yield
            finally:
                watcher.terminate()
                watcher.wait()

    def events(self) -> list[Event]:
        """Give what was noted, in the order in which it happened."""
        # The engine's command line writes a line piece by piece: the last one may not be whole yet.
        *lines, _ = self._events.read_text().split("\n")
        found = [line.split(" ", 2) for line in lines]
        return [
            Event(container=container, action=action, exit_status=int(status) if action == "die" else None)
            for container, action, status in found
        ]


def _file_options() -> list[str]:
    return [word for file in _FILES for word in ("-f", str(file))]


def _compose() -> str:
    found = shutil.which("docker-compose", path=TOOLS)
    if found is None:
        sys.exit("docker-compose is not installed: `make test-containers` installs it")
    return found
