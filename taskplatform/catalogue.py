"""Knows the tasks that workers have announced, and asks the store again before it calls one unknown."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Callable

from taskplatform.errors import OutcomeUnknown, SettingsError, StoreUnavailable, Unavailable, UnknownTask
from taskplatform.store.contract import TaskStore
from taskplatform.submission import Checker
from taskplatform.task import Announced, TaskSpec, bundle_jobs_in
from taskplatform.telemetry import logger

FRESH_SECONDS = 5.0
PAUSE_SECONDS = 0.05
"""Between two reads at least, however many ask for tasks that nobody has announced."""

HINTS_PER_SECOND = 20


class Catalogue:
    """The announced tasks of one process, each with its compiled checks."""

    def __init__(self, store: TaskStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._tasks: dict[str, Announced] = {}
        self._checkers: dict[str, Checker] = {}
        self._tried_at = float("-inf")
        self._loaded_at = float("-inf")
        self._loading: asyncio.Task[None] | None = None
        self._hints_left = HINTS_PER_SECOND
        self._hints_since = float("-inf")
        self._log = logger("taskplatform.catalogue")

    def now(self) -> float:
        """Tell the time by which `find` goes."""
        return self._clock()

    async def find(self, name: str, *, since: float | None = None) -> Checker:
        """Give the checks of a task; one that was announced before `since`, by default now, is always found.

        Raises UnknownTask, and StoreUnavailable when the tasks cannot be read.
        """
        found = self.known(name)
        if found is not None:
            return found
        await self._read_after(self.now() if since is None else since)
        found = self._checkers.get(name)
        if found is None:
            raise UnknownTask(name[:200], nearest=self._nearest(name))
        return found

    def known(self, name: str) -> Checker | None:
        """Give the checks of a task that is known here, and refresh in the background what has become old."""
        old = self._clock() - self._tried_at > FRESH_SECONDS
        if old and self._loading is None and self._checkers:
            self._begin()
        return self._checkers.get(name)

    def bundle_jobs(self, name: str) -> int:
        """Tell how many jobs of a task may travel together; 1 for one that is not known here."""
        return bundle_jobs_in(self._tasks, name)

    async def tasks(self) -> list[Announced]:
        """Give every task by name, all those that were announced before this call among them.

        While the store is away these are the ones that are known.
        Raises StoreUnavailable when they could never be read.
        """
        try:
            await self._read_after(self.now())
        except StoreUnavailable:
            if self._loaded_at == float("-inf"):
                raise
        return [self._tasks[name] for name in sorted(self._tasks)]

    async def refresh(self) -> None:
        """Read the tasks again, once for all who ask at the time. What is known stays while the store is away."""
        await asyncio.shield(self._loading or self._begin())
        if self._loaded_at == float("-inf"):
            raise StoreUnavailable("the tasks cannot be read at the moment")

    async def _read_after(self, since: float) -> None:
        while self._tried_at < since:
            pause = self._tried_at + PAUSE_SECONDS - self._clock()
            if self._loading is None and pause > 0:
                await asyncio.sleep(pause)
            else:
                await asyncio.shield(self._loading or self._begin())
        if self._loaded_at < since:
            raise StoreUnavailable("the tasks cannot be read at the moment")

    def _begin(self) -> asyncio.Task[None]:
        self._loading = asyncio.get_running_loop().create_task(self._load())
        return self._loading

    async def _load(self) -> None:
        began = self._tried_at = self._clock()
        try:
            tasks = await self._store.tasks()
        except (Unavailable, OutcomeUnknown) as error:
            self._log.warning("The tasks cannot be read", trouble=str(error))
            return
        finally:
            self._loading = None
        self._tasks = tasks
        self._checkers = {name: self._checker(name, task.spec) for name, task in tasks.items()}
        self._loaded_at = began

    def _checker(self, name: str, spec: TaskSpec) -> Checker:
        before = self._checkers.get(name)
        if before is not None and before.spec == spec:
            return before
        try:
            return Checker(spec)
        except SettingsError as error:
            self._log.error("A task is taken without a check of its arguments", trouble=str(error))
            return Checker(TaskSpec(name=name, version=spec.version, pool=spec.pool, takes_more_positional=True))

    def _nearest(self, name: str) -> str | None:
        # Comparing names costs milliseconds: a flood of unknown ones gets no hints.
        now = self._clock()
        if now - self._hints_since >= 1:
            self._hints_since, self._hints_left = now, HINTS_PER_SECOND
        if self._hints_left <= 0 or len(name) > 200:
            return None
        self._hints_left -= 1
        close = difflib.get_close_matches(name, list(self._checkers)[:500], n=1)
        return close[0] if close else None
