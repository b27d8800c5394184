"""One store out of several Postgres clusters: what an id names is asked of its cluster, lists of all, merged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from taskplatform.auth import ApiKey
from taskplatform.autoscale.contract import Choice, DecisionRecord, LiveWorker, Measurement
from taskplatform.errors import OutcomeUnknown, StoreUnavailable
from taskplatform.freshness import Position
from taskplatform.job import Attempt, DeadLetter, Job
from taskplatform.overview import Glance
from taskplatform.shards import cluster_of_row
from taskplatform.store import merging
from taskplatform.store.clusters import Cluster, Clusters
from taskplatform.store.contract import (
    AuditEntry,
    BuriedMessage,
    JobFilter,
    LetterFilter,
    Look,
    Release,
)
from taskplatform.store.watching import Crew, Crowd, OutboxState, Owed, Sessions, Standby
from taskplatform.task import Announced, TaskSpec

T = TypeVar("T")
R = TypeVar("R")


class ShardedStore:
    """TaskStore, ReadStore, OperateStore, ScaleStore and WatchStore over several clusters.

    A call about jobs raises ShardUnavailable when a cluster of them is away; so does a list, of which a part would be
    missing. What belongs to no job (API keys, tasks) every cluster has, and any of them may tell; leases and decisions
    of the autoscaler are in the first. Only the first may have replicas. The roles of a dispatcher work on each of the
    `clusters` by itself, and so do intakes.
    """

    def __init__(self, members: Sequence[Cluster]) -> None:
        self.clusters = Clusters(members)
        self._first = self.clusters.members[0]

    async def open(self) -> None:
        """Connect, and read the map."""
        await self.clusters.open()

    async def close(self) -> None:
        """Close all connections."""
        await self.clusters.close()

    async def tasks(self) -> dict[str, Announced]:
        """Read every announced task."""
        return await self.clusters.anyone(lambda member: member.tasks())

    async def announce(self, specs: Collection[TaskSpec]) -> None:
        """Store the specs of tasks in every cluster."""
        await self.clusters.all(lambda member: member.announce(specs), writes=True)

    @property
    def position(self) -> Position | None:
        """How far this process may have written or seen in the first cluster, which alone has replicas."""
        return self._first.position

    def note(self, position: Position) -> None:
        """Count what somebody else has read in the first cluster as seen by this process."""
        self._first.note(position)

    async def get(self, ids: Sequence[UUID]) -> dict[UUID, Job]:
        """Read jobs by id."""
        version = (await self.clusters.known()).version
        found = await self._get(ids)
        # Where it is not, it may have been at home by an older map.
        missing = set(ids) - found.keys()
        if missing and await self.clusters.newer(version, missing):
            found = await self._get(ids)
        return found

    async def look(self, ids: Sequence[UUID], seen: Position) -> Look:
        """Read jobs by id, those of the first cluster from replicas where they may."""
        version = (await self.clusters.known()).version
        found = await self._look(ids, seen)
        missing = set(ids) - found.jobs.keys()
        if missing and await self.clusters.newer(version, missing):
            found = await self._look(ids, seen)
        # What is not in the first cluster may have come to another one since, where its position says nothing.
        return Look(jobs=found.jobs, since=None) if missing else found

    async def attempts(self, job_id: UUID, seen: Position | None = None) -> list[Attempt]:
        """Read a job's attempts."""
        number = (await self.clusters.known()).of(job_id)
        return await self.clusters.one(number, lambda member: member.attempts(job_id, self._seen(member, seen)))

    async def search(self, wanted: JobFilter, limit: int, seen: Position | None = None) -> list[Job]:
        """Search every cluster."""
        pages = await self.clusters.all(lambda member: member.search(wanted, limit, self._seen(member, seen)))
        return merging.newest_jobs(pages, limit)

    async def done_among(self, ids: Sequence[UUID], seen: Position | None = None) -> set[UUID]:
        """Tell which jobs have ended; of those whose cluster does not answer at once nothing is told, unless none does.

        Many callers wait for this one answer, and it is asked for again soon.
        """
        parts = (await self.clusters.known()).split(ids)
        asked = {
            number: _bound(lambda member, mine: member.done_among(mine, self._seen(member, seen)), mine)
            for number, mine in parts.items()
        }
        return set().union(*await self.clusters.prompt(asked))

    async def letters(self, wanted: LetterFilter, limit: int, seen: Position | None = None) -> list[DeadLetter]:
        """Search the dead letters of every cluster, each from where its last one was."""
        pages = await self.clusters.all(
            lambda member: member.letters(
                merging.own_part(wanted, self.clusters.number(member)), limit, self._seen(member, seen)
            )
        )
        return merging.newest_letters(pages, limit)

    async def letter(self, letter_id: int) -> DeadLetter | None:
        """Read one dead letter."""
        number = cluster_of_row(letter_id)
        if number >= len(self.clusters.members):
            return None
        return await self.clusters.one(number, lambda member: member.letter(letter_id))

    async def glance(self) -> Glance:
        """Look at every cluster."""
        return merging.glance(await self.clusters.all(lambda member: member.glance()))

    async def cancel(self, tenant: str, ids: Sequence[UUID]) -> set[UUID]:
        """Cancel jobs in their clusters."""
        parts = await self._by_home(ids, lambda member, mine: member.cancel(tenant, mine), writes=True)
        return {job_id for _, cancelled in parts for job_id in cancelled}

    async def replay(self, tenant: str, ids: Sequence[UUID]) -> list[Release]:
        """Replay jobs in their clusters."""
        parts = await self._by_home(ids, lambda member, mine: member.replay(tenant, mine), writes=True)
        return [release for _, released in parts for release in released]

    async def mark_replayed(self, letter_id: int) -> bool:
        """Mark one dead letter."""
        return await self.clusters.one(
            cluster_of_row(letter_id), lambda member: member.mark_replayed(letter_id), writes=True
        )

    async def audit(self, entry: AuditEntry) -> None:
        """Store one audit entry in any cluster: what it tells of has happened."""
        await self.clusters.anyone(lambda member: member.audit(entry))

    async def add_key(self, key: ApiKey) -> None:
        """Store an API key in every cluster."""
        await self.clusters.all(lambda member: member.add_key(key), writes=True)

    async def key(self, key_id: str) -> ApiKey | None:
        """Read one API key. Raises ShardUnavailable for one that is unknown while not all clusters can say so."""
        found = await self.clusters.anyone(lambda member: member.key(key_id))
        if found is None:
            # A cluster that was added, or of which less was restored, may lack it.
            answers = await self.clusters.all(lambda member: member.key(key_id))
            found = next((answer for answer in answers if answer is not None), None)
        return found

    async def answer(self) -> None:
        """Have any cluster say something. Raises ShardUnavailable when none does."""
        await self.clusters.anyone(lambda member: member.key(""))

    async def keys(self) -> list[ApiKey]:
        """Read all API keys."""
        return await self.clusters.anyone(lambda member: member.keys())

    async def revoke_key(self, key_id: str) -> bool:
        """Revoke an API key in every cluster."""
        return any(await self.clusters.all(lambda member: member.revoke_key(key_id), writes=True))

    async def bury(self, messages: Sequence[BuriedMessage]) -> list[bool]:
        """Keep messages in the cluster of their job, those of no job in any; the others do not wait for one away."""
        homes = await self.clusters.known()
        wanted = [None if message.job_id is None else homes.of(message.job_id) for message in messages]

        async def done(number: int | None) -> bool:
            mine = [message for message, home in zip(messages, wanted, strict=True) if home == number]
            try:
                if number is None:
                    await self.clusters.anyone(lambda member: member.bury(mine))
                else:
                    await self.clusters.one(number, lambda member: member.bury(mine), writes=True)
            except (StoreUnavailable, OutcomeUnknown):
                return False
            return True

        numbers = list(dict.fromkeys(wanted))
        answers = dict(zip(numbers, await asyncio.gather(*map(done, numbers)), strict=True))
        return [answers[number] for number in wanted]

    async def hold_lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take or keep a lease."""
        return await self._first.hold_lease(name, holder, seconds)

    async def keep_lease(self, name: str, holder: str, seconds: float) -> bool:
        """Prolong a lease that is held."""
        return await self._first.keep_lease(name, holder, seconds)

    async def yield_lease(self, name: str, holder: str) -> None:
        """Give a lease up."""
        await self._first.yield_lease(name, holder)

    async def measure(self, window_seconds: float) -> Measurement:
        """Measure the first cluster and those others that are there: the jobs of one that is away cannot run."""
        first = await self._first.measure(window_seconds)
        others = {number: _measuring(window_seconds) for number in range(1, len(self.clusters.members))}
        return merging.measurement([first, *await self.clusters.living(others, none_is_fine=True)])

    async def live_workers(self) -> list[LiveWorker]:
        """Read the living leases."""
        return merging.workers(await self._all_living(lambda member: member.live_workers()))

    async def record_decisions(self, holder: str, choices: Sequence[Choice]) -> bool:
        """Keep decisions."""
        return await self._first.record_decisions(holder, choices)

    async def decisions(self, pool: str, limit: int, *, since: datetime | None = None) -> list[DecisionRecord]:
        """Read decisions about one pool."""
        return await self._first.decisions(pool, limit, since=since)

    async def newest_decisions(self) -> list[DecisionRecord]:
        """Read the newest decision about each pool."""
        return await self._first.newest_decisions()

    async def prune_decisions(self, keep_days: float, limit: int) -> int:
        """Delete old decisions."""
        return await self._first.prune_decisions(keep_days, limit)

    # Who watches sees what there is to see: the clusters that are there.

    async def census(self) -> list[Crowd]:
        """Count live jobs."""
        return [crowd for crowds in await self._all_living(lambda member: member.census()) for crowd in crowds]

    async def unreplayed_letters(self) -> dict[tuple[str, str], int]:
        """Count dead letters."""
        return merging.summed(await self._all_living(lambda member: member.unreplayed_letters()))

    async def outbox_state(self) -> OutboxState:
        """Look at every outbox."""
        return merging.outbox(await self._all_living(lambda member: member.outbox_state()))

    async def crews(self) -> list[Crew]:
        """Count workers; each has a lease in every cluster."""
        return merging.crews(await self._all_living(lambda member: member.crews()))

    async def standbys(self) -> list[Standby]:
        """Look at the standbys of every cluster."""
        return [each for found in await self._all_living(lambda member: member.standbys()) for each in found]

    async def sessions(self) -> Sessions:
        """Look at the sessions of every cluster."""
        return merging.sessions(await self._all_living(lambda member: member.sessions()))

    async def in_outbox(self) -> dict[str, int]:
        """Count jobs in every outbox."""
        return merging.summed(await self._all_living(lambda member: member.in_outbox()))

    async def owed(self, age_seconds: float) -> dict[str, Owed]:
        """Count jobs that somebody must have."""
        return merging.owed(await self._all_living(lambda member: member.owed(age_seconds)))

    async def _all_living(self, ask: Callable[[Cluster], Awaitable[T]]) -> list[T]:
        return await self.clusters.living(dict.fromkeys(range(len(self.clusters.members)), ask))

    async def _by_home(
        self, ids: Sequence[UUID], ask: Callable[[Cluster, list[UUID]], Awaitable[T]], *, writes: bool = False
    ) -> list[tuple[list[UUID], T]]:
        parts = (await self.clusters.known()).split(ids)
        answers = await self.clusters.each({number: _bound(ask, mine) for number, mine in parts.items()}, writes=writes)
        return [(parts[number], answer) for number, answer in answers.items()]

    async def _get(self, ids: Sequence[UUID]) -> dict[UUID, Job]:
        return _joined(found for _, found in await self._by_home(ids, lambda member, mine: member.get(mine)))

    async def _look(self, ids: Sequence[UUID], seen: Position) -> Look:
        async def ask(member: Cluster, mine: list[UUID]) -> Look:
            if member is self._first:
                return await member.look(mine, seen)
            return Look(jobs=await member.get(mine), since=None)

        parts = [found for _, found in await self._by_home(ids, ask)]
        if len(parts) == 1:
            return parts[0]
        return Look(jobs=_joined(part.jobs for part in parts), since=None)

    def _seen(self, member: Cluster, seen: Position | None) -> Position | None:
        return seen if member is self._first else None


def _bound(ask: Callable[[Cluster, list[T]], Awaitable[R]], part: list[T]) -> Callable[[Cluster], Awaitable[R]]:
    return lambda member: ask(member, part)


def _measuring(window_seconds: float) -> Callable[[Cluster], Awaitable[Measurement]]:
    return lambda member: member.measure(window_seconds)


def _joined(parts: Iterable[Mapping[UUID, Job]]) -> dict[UUID, Job]:
    return {job_id: job for part in parts for job_id, job in part.items()}
