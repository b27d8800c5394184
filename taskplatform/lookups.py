"""Reads jobs by id through the cache: nobody is shown less than it has seen, and what many ask is read once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from taskplatform.cache.contract import Cache, Kept
from taskplatform.cache.entry import MOST_BYTES, Entry, decode, encode, keep_seconds, key_of
from taskplatform.freshness import Position
from taskplatform.job import Job
from taskplatform.store.contract import Look, ReadStore
from taskplatform.store.routing import may_show
from taskplatform.telemetry import Metrics

WAIT_SECONDS = 0.05
"""How long to wait for what another process reads just now."""
LOOK_SECONDS = 0.005
"""The pause between two looks whether it has."""


class Source(ReadStore, Protocol):
    """The store behind the cache."""

    def note(self, position: Position) -> None:
        """Count what somebody else has read, up to there, as seen by this process."""


class _Flight:
    """One read of one job for all who want it; whoever comes before it has `begun` may be shown whatever it finds."""

    __slots__ = ("begun", "job_id", "seen", "task", "tenant")

    def __init__(self, tenant: str, job_id: UUID, seen: Position) -> None:
        self.tenant = tenant
        self.job_id = job_id
        self.seen = seen
        self.begun = False
        self.task: asyncio.Task[Entry]


class Lookups(Protocol):
    """Looks jobs up by id. Raises StoreUnavailable for what is not known and cannot be asked."""

    async def one(self, tenant: str, job_id: UUID, seen: Position) -> Job | None:
        """Give the tenant's job of that id, not as it stood before `seen`; None where it has none.

        A job that never changes any more may come from anywhere, also while the store is away.
        """

    async def many(self, tenant: str, ids: Sequence[UUID], seen: Position) -> dict[UUID, Job]:
        """Give those jobs of these ids that the tenant has, as `one` does."""


class Direct:
    """Lookups in the store."""

    def __init__(self, source: ReadStore) -> None:
        self._source = source

    async def one(self, tenant: str, job_id: UUID, seen: Position) -> Job | None:
        """See Lookups.one."""
        return (await self.many(tenant, [job_id], seen)).get(job_id)

    async def many(self, tenant: str, ids: Sequence[UUID], seen: Position) -> dict[UUID, Job]:
        """See Lookups.many."""
        found = await self._source.look(ids, seen)
        return {job_id: job for job_id, job in found.jobs.items() if job.tenant == tenant}


class Cached:
    """Lookups in the `cache`, and for what is not there in the `source`; `retention` is how long ended jobs are kept.

    A job that several want at once is read once, also by several processes, unless one of them takes longer than
    `wait_seconds`.
    """

    def __init__(
        self,
        source: Source,
        cache: Cache,
        metrics: Metrics,
        *,
        retention: timedelta,
        wait_seconds: float = WAIT_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._cache = cache
        self._reads = metrics.cache_reads_total
        self._retention = retention
        self._wait_seconds = wait_seconds
        self._now = now
        self._random = random.Random()
        self._flights: dict[str, _Flight] = {}

    async def one(self, tenant: str, job_id: UUID, seen: Position) -> Job | None:
        """See Lookups.one."""
        key = key_of(tenant, job_id)
        while True:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight(tenant, job_id, seen)
                flight.task = asyncio.create_task(self._fly(key, flight), name="lookup")
                flight.task.add_done_callback(_retrieve)
            else:
                self._count("joined")
            in_time = not flight.begun
            if in_time:
                flight.seen = flight.seen.joined(seen)
            # Who stops waiting leaves the others to their read.
            entry = await asyncio.shield(flight.task)
            if in_time or _may_see(entry, seen):
                return entry.job

    async def many(self, tenant: str, ids: Sequence[UUID], seen: Position) -> dict[UUID, Job]:
        """See Lookups.many. What is not in the cache takes one read."""
        wanted = list(dict.fromkeys(ids))
        values = await self._cache.get([key_of(tenant, job_id) for job_id in wanted])
        known = {
            job_id: entry
            for job_id, value in zip(wanted, values, strict=True)
            if (entry := self._shown(value, tenant, job_id, seen)) is not None
        }
        missing = [job_id for job_id in wanted if job_id not in known]
        self._count("hit", len(known))
        self._count("miss", len(missing))
        if missing:
            read = self._entries(tenant, missing, await self._source.look(missing, seen))
            self._cache.put([kept for entry in read if (kept := self._kept(entry)) is not None])
            known |= {entry.id: entry for entry in read}
        return {job_id: entry.job for job_id in wanted if (entry := known[job_id]).job is not None}

    async def _fly(self, key: str, flight: _Flight) -> Entry:
        flight.begun = True
        try:
            entry = await self._known_to_others(key, flight)
            self._count("miss" if entry is None else "hit")
            return await self._fill(key, flight) if entry is None else entry
        finally:
            del self._flights[key]

    async def _known_to_others(self, key: str, flight: _Flight) -> Entry | None:
        """Look in the cache, and wait a moment for a process that reads the job too; None when this one has to."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._wait_seconds
        while True:
            claim = await self._cache.claim(key)
            if claim.value is not None or claim.mine or clock() > until:
                return self._shown(claim.value, flight.tenant, flight.job_id, flight.seen)
            await asyncio.sleep(LOOK_SECONDS)

    async def _fill(self, key: str, flight: _Flight) -> Entry:
        kept = None
        try:
            found = await self._source.look([flight.job_id], flight.seen)
            (entry,) = self._entries(flight.tenant, [flight.job_id], found)
            kept = self._kept(entry)
            return entry
        finally:
            if kept is None:
                self._cache.release(key)
            else:
                self._cache.put([kept])

    def _shown(self, value: bytes | None, tenant: str, job_id: UUID, seen: Position) -> Entry | None:
        entry = None if value is None else decode(value, tenant, job_id)
        if entry is None or not _may_see(entry, seen):
            return None
        if entry.until is not None:
            # The next thing that this caller reads, from a replica perhaps, must not be older.
            self._source.note(entry.until)
        return entry

    def _entries(self, tenant: str, ids: Sequence[UUID], found: Look) -> list[Entry]:
        until = self._source.position
        return [
            Entry(
                tenant=tenant,
                id=job_id,
                job=_of_tenant(tenant, found.jobs.get(job_id)),
                since=found.since,
                until=until,
            )
            for job_id in ids
        ]

    def _count(self, outcome: str, reads: int = 1) -> None:
        self._reads.labels(outcome=outcome).inc(reads)

    def _kept(self, entry: Entry) -> Kept | None:
        seconds = keep_seconds(entry, self._now(), self._retention, self._random)
        if seconds <= 0:
            return None
        value = encode(entry)
        return Kept(key_of(entry.tenant, entry.id), value, seconds) if len(value) <= MOST_BYTES else None


def _may_see(entry: Entry, seen: Position) -> bool:
    if entry.job is None:
        return entry.since is not None and entry.since.includes(seen)
    return may_show(entry.job, entry.since, seen)


def _of_tenant(tenant: str, job: Job | None) -> Job | None:
    return job if job is not None and job.tenant == tenant else None


def _retrieve(task: asyncio.Task[Entry]) -> None:
    # All who waited for it may have gone.
    if not task.cancelled():
        task.exception()
