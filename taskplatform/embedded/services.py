"""How the services of an embedded platform are started, and where each says that it is well."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from taskplatform.servers import Command
from taskplatform.settings import PREFIX, Settings, environment_of
from taskplatform.supervisor import Service

# What the caller's shell says to libpq, Celery and Flower must not reach services that get all of it from us.
_NOT_INHERITED = (PREFIX, "PG", "CELERY_", "FLOWER_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services over complete settings; their output goes to files in `logs`."""

    settings: Settings
    logs: Path

    def all(self, worker_port: int, dispatcher_port: int) -> dict[str, Service]:
        """Give every service by its name, the one that has to stop first last."""
        worker = self.settings.changed(metrics_port=worker_port)
        dispatcher = self.settings.changed(metrics_port=dispatcher_port)
        found = {"flower": self._flower()} if self.settings.flower_port else {}
        # The API comes last, because what was started last is stopped first.
        return found | {
            "dispatcher": self._service(
                "dispatcher",
                dispatcher,
                ("taskplatform.cli", "dispatcher"),
                f"http://127.0.0.1:{dispatcher_port}/livez",
            ),
            **self._workers(worker, worker_port),
            "api": self._service("api", self.settings, ("api",), f"{self.settings.api_url}/readyz"),
        }

    def _workers(self, settings: Settings, port: int) -> dict[str, Service]:
        stop_seconds = settings.worker_drain_seconds + 15.0
        if settings.autoscale_driver != "process":
            health = f"http://127.0.0.1:{port}/readyz"
            return {"worker": self._service("worker", settings, ("workers",), health, stop_seconds=stop_seconds)}
        # The first worker announces the tasks: without one nothing could be handed in.
        least = settings.changed(autoscale_min_workers=max(settings.autoscale_min_workers, 1))
        module = ("taskplatform.cli", "autoscaler")
        health = f"http://127.0.0.1:{port}/livez"
        return {"autoscaler": self._service("autoscaler", least, module, health, stop_seconds=stop_seconds)}

    def _flower(self) -> Service:
        health = f"http://127.0.0.1:{self.settings.flower_port}/{self.settings.flower_prefix}/healthcheck"
        return self._service("flower", self.settings, ("workers.flower",), health)

    def _service(
        self,
        name: str,
        settings: Settings,
        module: tuple[str, ...],
        health_url: str,
        *,
        stop_seconds: float = 10.0,
    ) -> Service:
        log = self.logs / f"{name}.log"
        with suppress(FileNotFoundError):
            log.replace(self.logs / f"{name}.before.log")
        environment = {**inherited(), **environment_of(settings)}
        # -P: what lies in the folder where services run must not be imported.
        command = Command(name=name, argv=(sys.executable, "-P", "-m", *module), log=log, env=environment)
        return Service(command, health_url, stop_seconds=stop_seconds)


def inherited() -> dict[str, str]:
    """Give what a process of the platform gets of this one's environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    places = [str(Path.cwd()), kept.get("PYTHONPATH", "")]
    return {
        # Every thread that allocates would otherwise take a heap of its own, which stays.
        "MALLOC_ARENA_MAX": "2",
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONUNBUFFERED": "1",
    }
