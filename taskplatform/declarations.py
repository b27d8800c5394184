"""Keeps in mind what the announced tasks declare of bundles, for a process that publishes their jobs."""

from __future__ import annotations

from typing import ClassVar, Protocol

from taskplatform.service import Role
from taskplatform.task import Announced, bundle_jobs_in
from taskplatform.telemetry import Metrics

DECLARATIONS_SECONDS = 5.0


class Tasks(Protocol):
    """Where announced tasks are found."""

    async def tasks(self) -> dict[str, Announced]:
        """See TaskStore."""


class Declarations(Role):
    """Reads the announced tasks again and again; while the store is away, what was read last counts."""

    name: ClassVar[str] = "declarations"

    def __init__(self, store: Tasks, metrics: Metrics) -> None:
        super().__init__(metrics, pause_seconds=DECLARATIONS_SECONDS)
        self._store = store
        self._tasks: dict[str, Announced] = {}

    async def run_once(self) -> bool:
        """Read them once. Raises StoreUnavailable."""
        self._tasks = await self._store.tasks()
        return False

    def bundle_jobs(self, task: str) -> int:
        """Tell how many jobs of a task may travel together; 1 for one that is not known here."""
        return bundle_jobs_in(self._tasks, task)
