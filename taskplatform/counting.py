"""Counts of all live jobs and dead letters for whoever asks, never made more often than they are worth their price."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from taskplatform.cancelling import cancel
from taskplatform.errors import StoreUnavailable
from taskplatform.overview import Glance, Overview, Waiting
from taskplatform.store.watching import Crowd, WatchStore
from taskplatform.telemetry import logger

RESTS_PER_COUNT = 50
"""A count that takes a second is followed by this many seconds of rest: it costs Postgres 2 % of one processor."""
LEAST_REST_SECONDS = 0.2
MOST_REST_SECONDS = 300.0
"""How long nobody counts after a failure at most: it may have been the server's and not that of the count."""
PATIENCE_SECONDS = 1.0
"""How long a caller waits for a new count where there is an old one."""


_log = logger("taskplatform.counting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was counted, in how many seconds, and when, by the monotonic clock."""

    crowds: Sequence[Crowd]
    letters: Mapping[tuple[str, str], int]
    took_seconds: float
    at: float


async def count(store: WatchStore, clock: Callable[[], float]) -> Counts:
    """Count once; this reads every live job. Raises StoreUnavailable, also when it takes too long."""
    began = clock()
    crowds, letters = await store.census(), await store.unreplayed_letters()
    return Counts(crowds=crowds, letters=letters, took_seconds=clock() - began, at=began)


def rest_after(took_seconds: float, least_seconds: float) -> float:
    """Tell for how many seconds from its beginning a count should be the last one."""
    return max(least_seconds, RESTS_PER_COUNT * took_seconds)


def rest_after_failure(took_seconds: float, least_seconds: float) -> float:
    """Tell the same of a count that failed: it has cost as much, but what made it fail may be over soon."""
    return min(rest_after(took_seconds, least_seconds), max(least_seconds, MOST_REST_SECONDS))


class Counting:
    """One count at a time, however many ask; it is given until there is a newer one, also while none can be made."""

    def __init__(self, store: WatchStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._last: Counts | None = None
        self._trouble = ""
        self._due = float("-inf")
        self._under_way: asyncio.Task[Counts] | None = None

    async def overview(self, glance: Glance) -> Overview:
        """Complete a glance. Raises StoreUnavailable when nothing has ever been counted, and nothing can be now."""
        counts = await self._latest()
        return overview_of(glance, counts, age_seconds=max(self._clock() - counts.at, 0.0))

    async def stop(self) -> None:
        """Abandon a count that is under way."""
        if self._under_way is not None:
            await cancel(self._under_way)

    async def _latest(self) -> Counts:
        if self._under_way is None and self._clock() >= self._due:
            # It outlives whoever asks first, and is no part of that request's trace.
            apart = Context()
            self._under_way = asyncio.get_running_loop().create_task(count(self._store, self._clock), context=apart)
            self._under_way.add_done_callback(partial(self._counted, self._clock()), context=apart)
        if self._under_way is not None:
            # Whoever stops waiting stops nobody else's count.
            await asyncio.wait([self._under_way], timeout=None if self._last is None else PATIENCE_SECONDS)
        if self._last is None:
            raise StoreUnavailable(f"nothing could be counted: {self._trouble}")
        return self._last

    def _counted(self, began: float, task: asyncio.Task[Counts]) -> None:
        self._under_way = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._last, self._trouble = task.result(), ""
            self._due = self._last.at + rest_after(self._last.took_seconds, LEAST_REST_SECONDS)
            return
        # After its end, and not from its beginning: it may have taken longer than it is to be rested.
        now = self._clock()
        self._due = now + rest_after_failure(now - began, LEAST_REST_SECONDS)
        before, self._trouble = self._trouble, f"{type(error).__name__}: {error}"
        if self._trouble != before:
            _log.warning("Nothing can be counted", trouble=self._trouble)


def overview_of(glance: Glance, counts: Counts, *, age_seconds: float) -> Overview:
    """Put together what is seen at a glance and what was counted."""
    pools: dict[str, dict[str, Waiting]] = {}
    for crowd in counts.crowds:
        states = pools.setdefault(crowd.pool, {})
        before = states.get(crowd.state, Waiting(jobs=0, oldest_seconds=0.0))
        states[crowd.state.value] = Waiting(
            jobs=before.jobs + crowd.jobs, oldest_seconds=max(before.oldest_seconds, crowd.oldest_seconds)
        )
    return Overview(
        at=glance.at,
        pools=pools,
        workers=glance.workers,
        outbox=glance.outbox,
        dead_letters=sum(counts.letters.values()),
        totals=glance.totals,
        counted_seconds_ago=age_seconds,
        versions=glance.versions,
    )
