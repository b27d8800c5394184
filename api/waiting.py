"""Waits for jobs to end on behalf of many callers, with one query for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from uuid import UUID

from taskplatform.cancelling import cancel
from taskplatform.errors import TaskplatformError
from taskplatform.freshness import LATEST, START, Position
from taskplatform.store.contract import ReadStore

SHORTEST_SECONDS = 0.01
LONGEST_SECONDS = 0.25
MOST_AT_ONCE = 1000


class _Watch:
    """Who waits for one job, since when, and when it is looked at next."""

    __slots__ = ("began", "due", "ended", "seen", "waiters")

    def __init__(self, now: float) -> None:
        self.began = now
        self.due = now + SHORTEST_SECONDS
        self.ended = asyncio.Event()
        self.seen = START
        self.waiters = 0


class Waiter:
    """The waits of one process.

    A job is looked at SHORTEST_SECONDS after somebody began to wait for it, then ever more rarely up to every
    LONGEST_SECONDS; all that are due go into one query.
    """

    def __init__(self, store: ReadStore) -> None:
        self._store = store
        self._watches: dict[UUID, _Watch] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def wait(self, job_id: UUID, seconds: float, seen: Position = START) -> bool:
        """Return True when the job has ended, False when the time is over before; early when the process stops.

        It has not ended where only those say so who do not hold all that the caller has `seen`.
        """
        if seconds <= 0 or self._stopping:
            return False
        loop = asyncio.get_running_loop()
        watch = self._watches.setdefault(job_id, _Watch(loop.time()))
        watch.waiters += 1
        watch.seen = watch.seen.joined(seen).joined(self._store.position or START)
        if self._task is None:
            # It looks for all who wait, and is no part of the first one's trace.
            self._task = loop.create_task(self._look(loop.time), context=Context())
        try:
            async with asyncio.timeout(seconds):
                await watch.ended.wait()
        except TimeoutError:
            return False
        finally:
            watch.waiters -= 1
            if not watch.waiters and self._watches.get(job_id) is watch:
                del self._watches[job_id]
        return not self._stopping

    def dismiss(self) -> None:
        """Send everybody away, and whoever comes."""
        self._stopping = True
        for watch in self._watches.values():
            watch.ended.set()

    async def stop(self) -> None:
        """Send everybody away, and look no more."""
        self.dismiss()
        if self._task is not None:
            await cancel(self._task)

    async def _look(self, clock: Callable[[], float]) -> None:
        try:
            while self._watches:
                now = clock()
                nearest = min(watch.due for watch in self._watches.values())
                await asyncio.sleep(max(nearest - now, SHORTEST_SECONDS / 2))
                await self._ask(clock())
        finally:
            self._task = None

    async def _ask(self, now: float) -> None:
        soon = now + SHORTEST_SECONDS / 2
        due = [job_id for job_id, watch in self._watches.items() if watch.due <= soon][:MOST_AT_ONCE]
        seen = START if self._store.position is not None else LATEST
        for job_id in due:
            seen = seen.joined(self._watches[job_id].seen)
        try:
            ended = await self._store.done_among(due, seen) if due else set()
        except TaskplatformError:
            ended = set()
        for job_id in due:
            watch = self._watches.get(job_id)
            if watch is None:
                continue
            if job_id in ended:
                watch.ended.set()
            age = now - watch.began
            watch.due = now + min(max(age / 2, SHORTEST_SECONDS), LONGEST_SECONDS)
