"""Publishes what commits released: at once where nothing is under way, else that of several commits together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from taskplatform.errors import BrokerUnavailable
from taskplatform.publish import Publisher, settled_rows
from taskplatform.store.contract import Release
from taskplatform.telemetry import logger

GATHER_SECONDS = 0.01
"""How long a job waits at most for a confirm that is due to others."""
GATHER_JOBS = 100
"""So many jobs wait for nobody's confirm."""
PUBLISHING_JOBS = 20_000
"""How many jobs may wait here; beyond that the relay publishes."""


class Gathering:
    """Publishes for one process, on one event loop; `settled` is given the outbox rows whose jobs are all confirmed.

    A publish costs by the call: tasks, system calls, a write of the broker's log. So what comes while a confirm is due
    leaves with the next publish: when the confirm is there, after GATHER_SECONDS, or once there are GATHER_JOBS.

    Few jobs lose no time by it. The next of 50 jobs a second comes when the confirm of the one before has long been
    there, and is published at once. Where it has not, the broker is still writing its log, and would begin to write
    down what comes in meanwhile no sooner than it can confirm what came before.
    """

    def __init__(self, publisher: Publisher, settled: Callable[[Sequence[int]], None]) -> None:
        self._publisher = publisher
        self._settled = settled
        self._log = logger("taskplatform.gathering")
        self._held: list[Release] = []
        self._jobs = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, releases: Sequence[Release]) -> None:
        """Publish jobs that are queued already, soon; those that are too many stay in the outbox for the relay."""
        if self._jobs + len(releases) > PUBLISHING_JOBS:
            return
        self._jobs += len(releases)
        self._held += releases
        if not self._tasks or len(self._held) >= GATHER_JOBS:
            self._publish_held()
        elif self._timer is None and self._held:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._publish_held)

    async def publish(self, releases: Sequence[Release]) -> None:
        """Publish jobs that are queued already, now; what is not confirmed stays in the outbox for the relay."""
        try:
            confirmed = await self._publisher(releases)
        except BrokerUnavailable as error:
            self._log.info("Jobs wait in the outbox", trouble=str(error))
            return
        self._settled(settled_rows(releases, confirmed))

    async def finish(self) -> None:
        """Return when nothing is held or under way any more."""
        while self._held or self._tasks:
            self._publish_held()
            await asyncio.wait(self._tasks)

    def _publish_held(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        if held:
            task = asyncio.get_running_loop().create_task(self._carry(held))
            self._tasks.add(task)
            task.add_done_callback(self._arrived)

    async def _carry(self, releases: Sequence[Release]) -> None:
        try:
            await self.publish(releases)
        finally:
            self._jobs -= len(releases)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.error("A publish failed unexpectedly", exc_info=error)
        self._publish_held()
