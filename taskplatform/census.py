"""Counts all live jobs and dead letters now and then, never more often than the count is worth its price."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from taskplatform.counting import count, rest_after, rest_after_failure
from taskplatform.errors import InvalidInput
from taskplatform.job import LIVE, State
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.watching import Crowd, WatchStore
from taskplatform.telemetry import Metrics
from taskplatform.topology import pool_of

OTHER_POOL = "other"
ANY_REASON = "any"
"""The label of a zero, so that a pool without dead letters has a figure that can grow."""

_OVERDUE = (State.SCHEDULED, State.RETRYING)
_MAY_RUN = (State.QUEUED, State.BLOCKED)


class Census(Role):
    """Shows depth by state and gate, oldest ages, and unreplayed dead letters; forgets them when it cannot count."""

    name: ClassVar[str] = "census"

    def __init__(
        self, store: WatchStore, metrics: Metrics, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(metrics, pause_seconds=settings.exporter_seconds)
        self._store = store
        self._pools = settings.pools
        self._least_seconds = settings.exporter_seconds
        self._clock = clock

    async def run_once(self) -> bool:
        """Count once, and rest the longer the longer it took."""
        began = self._clock()
        try:
            counts = await count(self._store, self._clock)
        except BaseException:
            self.pause_seconds = rest_after_failure(self._clock() - began, 0.0)
            self._forget()
            raise
        self.pause_seconds = rest_after(counts.took_seconds, self._least_seconds)
        self._forget()
        self.metrics.census_seconds.set(counts.took_seconds)
        self._show(counts.crowds)
        waiting: Counter[tuple[str, str]] = Counter({(pool, ANY_REASON): 0 for pool in self._pools})
        for (queue, reason), number in counts.letters.items():
            waiting[self._pool_of(queue), reason] += number
        for (pool, reason), number in waiting.items():
            self.metrics.dead_letters.labels(pool=pool, reason=reason).set(number)
        return False

    async def rest(self) -> None:
        """Wait for the next count."""
        await asyncio.sleep(self.pause_seconds)

    def wait_after_failure(self) -> float:
        """Rest longer after a count that took long before it failed: it has cost as much as one that ends well."""
        return max(super().wait_after_failure(), self.pause_seconds)

    def _forget(self) -> None:
        metrics = self.metrics
        for gauge in (
            metrics.jobs,
            metrics.jobs_blocked,
            metrics.queue_oldest_age_seconds,
            metrics.dispatch_lag_seconds,
        ):
            gauge.clear()
        metrics.dead_letters.clear()

    def _show(self, crowds: Sequence[Crowd]) -> None:
        metrics = self.metrics
        # A pool that has nothing to do is shown, and not taken for one that nobody counts.
        jobs: Counter[tuple[str, str]] = Counter({(pool, state): 0 for pool in self._pools for state in LIVE})
        blocked: Counter[tuple[str, str]] = Counter()
        for crowd in crowds:
            jobs[crowd.pool, crowd.state] += crowd.jobs
            if crowd.gate:
                blocked[crowd.pool, crowd.gate] += crowd.jobs
        for (pool, state), number in jobs.items():
            metrics.jobs.labels(pool=pool, state=state).set(number)
        for (pool, gate), number in blocked.items():
            metrics.jobs_blocked.labels(pool=pool, gate=gate).set(number)
        for gauge, states in (
            (metrics.queue_oldest_age_seconds, _MAY_RUN),
            (metrics.dispatch_lag_seconds, _OVERDUE),
        ):
            for pool, seconds in self._oldest(crowds, states).items():
                gauge.labels(pool=pool).set(seconds)

    def _oldest(self, crowds: Sequence[Crowd], states: Collection[State]) -> dict[str, float]:
        oldest = dict.fromkeys(self._pools, 0.0)
        for crowd in crowds:
            if crowd.state in states:
                oldest[crowd.pool] = max(oldest.get(crowd.pool, 0.0), crowd.oldest_seconds)
        return oldest

    def _pool_of(self, queue: str) -> str:
        # The queue of a dead letter is what a stranger's message said.
        try:
            pool = pool_of(queue)
        except InvalidInput:
            return OTHER_POOL
        return pool if pool in self._pools else OTHER_POOL
