"""The platform as it runs in production, on private servers: API, worker and dispatcher as real processes."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from taskplatform import wiring
from taskplatform.auth import Scope, new_key
from taskplatform.servers import Command, free_ports
from taskplatform.servers.configuration import CLEAN_ENVIRONMENT
from taskplatform.settings import Settings, environment_of, load
from taskplatform.store.opening import opened
from tests.native.accounting import Usage
from tests.native.part import Part
from tests.native.servers import Home, Place

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What is run as API, worker and dispatcher, as arguments of the interpreter; a test may put its own there."""

    api: tuple[str, ...] = ("-m", "api")
    worker: tuple[str, ...] = ("-m", "workers")
    dispatcher: tuple[str, ...] = ("-m", "taskplatform.cli", "dispatcher")


@dataclass(slots=True)
class Stack:
    """One platform with a database and a virtual host of its own; a context manager that starts and stops it.

    `wanted` are settings over the defaults, `environment` is added for the tasks.
    """

    servers: Place
    wanted: Mapping[str, Any]
    programs: Programs = field(default_factory=Programs)
    environment: Mapping[str, str] = field(default_factory=dict)
    name: str = "platform"
    home: Home = field(init=False)
    settings: Settings = field(init=False)
    key: str = field(init=False)
    api: Part = field(init=False)
    worker: Part = field(init=False)
    dispatcher: Part = field(init=False)
    _cleanup: ExitStack = field(default_factory=ExitStack, init=False)

    def __post_init__(self) -> None:
        self.home = self.servers.new_home()

    def __enter__(self) -> Self:
        self.prepare()
        with ExitStack() as cleanup:
            cleanup.callback(self.servers.drop_home, self.home)
            cleanup.callback(self._stop)
            for part in self.parts:
                part.start()
            for part in self.parts:
                part.await_ready()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def parts(self) -> tuple[Part, ...]:
        """All processes of the platform."""
        return self.worker, self.dispatcher, self.api

    def prepare(self) -> None:
        """Make the tables, the queues and a key, without starting anything."""
        (api_port,) = free_ports(1)
        self.settings = load(
            {},
            database_url=self.home.database_url,
            database_replica_urls=self.home.replica_urls,
            broker_url=self.home.broker_url,
            signing_keys=secrets.token_hex(32),
            api_port=api_port,
            api_url=f"http://127.0.0.1:{api_port}",
            log_format="text",
            # Whoever wants to see it drain says so: no other test waits for it.
            **{"api_drain_seconds": 0.0, **self.wanted},
        )
        subprocess.run(
            [sys.executable, "-m", "taskplatform.cli", "init"],
            env=self._environment(self.settings),
            cwd=_ROOT,
            check=True,
            timeout=60,
            capture_output=True,
        )
        self.key = asyncio.run(_new_key(self.settings))
        self.api = self.new_api(self.settings.api_port)
        self.worker = self.new_worker("worker")
        self.dispatcher = self.new_dispatcher()

    def new_api(self, port: int, name: str = "api") -> Part:
        """Make an API process, not started."""
        return self._part(name, self.programs.api, port, "/readyz", api_port=port)

    def new_worker(self, name: str = "another worker") -> Part:
        """Make a worker, not started."""
        (port,) = free_ports(1)
        return self._part(name, self.programs.worker, port, "/readyz", metrics_port=port)

    def new_dispatcher(self, name: str = "dispatcher") -> Part:
        """Make a dispatcher, not started."""
        (port,) = free_ports(1)
        return self._part(name, self.programs.dispatcher, port, "/livez", metrics_port=port)

    def new_exporter(self) -> Part:
        """Make an exporter, not started; its canaries go through the API."""
        (port,) = free_ports(1)
        program = ("-m", "taskplatform.cli", "exporter")
        return self._part("exporter", program, port, "/livez", metrics_port=port, api_key=SecretStr(self.key))

    def new_autoscaler(self) -> Part:
        """Make an autoscaler, not started, that decides and changes nothing."""
        (port,) = free_ports(1)
        program = ("-m", "taskplatform.cli", "autoscaler")
        quick = {"autoscale_poll_seconds": 0.5, "autoscale_min_workers": 1, "autoscale_max_workers": 1}
        return self._part("autoscaler", program, port, "/livez", metrics_port=port, autoscale_driver="keda", **quick)

    def new_flower(self) -> Part:
        """Make a Flower, not started."""
        (port,) = free_ports(1)
        return self._part("flower", ("-m", "workers.flower"), port, "/flower/healthcheck", flower_port=port)

    def messages(self) -> int:
        """Count the messages in all queues, those out with a worker too; the broker's figure is a few seconds old."""
        return self.servers.messages(self.home)

    def usage(self) -> Usage:
        """Give what the platform's own processes have used."""
        return sum((part.usage() for part in self.parts), Usage())

    def _stop(self) -> None:
        with ThreadPoolExecutor() as threads:
            list(threads.map(Part.stop, self.parts))

    def _part(self, name: str, program: tuple[str, ...], port: int, path: str, **more: Any) -> Part:
        command = Command(
            name=f"the {name}",
            argv=(sys.executable, *program),
            log=self.servers.folder / f"{self.home.name}-{name}.log",
            env=self._environment(self.settings.changed(**more)),
        )
        return Part(command, port, path)

    def _environment(self, settings: Settings) -> dict[str, str]:
        own = {"PYTHONPATH": str(_ROOT), "HOME": str(self.servers.folder), "PYTHONUNBUFFERED": "1"}
        return {**CLEAN_ENVIRONMENT, **environment_of(settings), **self.environment, **own}


async def _new_key(settings: Settings) -> str:
    stored, shown = new_key("default", [Scope.ADMIN], name="native stack")
    async with opened(wiring.new_store(settings)) as store:
        await store.add_key(stored)
    return shown
