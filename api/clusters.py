"""One way in for each Postgres cluster, so that the trouble of one holds up no other's jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Protocol
from uuid import UUID

from taskplatform.errors import InvalidInput, OutcomeUnknown, ShardMoved, TaskplatformError
from taskplatform.intake import Stored
from taskplatform.job import NewJob
from taskplatform.store.clusters import Clusters, has_moved
from taskplatform.store.contract import RefusedJob, Release


class OneCluster(Protocol):
    """The way into one cluster."""

    async def submit(self, jobs: Sequence[NewJob], *, whole: bool = False) -> list[Stored]:
        """Store jobs."""

    async def stop(self) -> None:
        """Take nothing more."""


class Publishing(OneCluster, Protocol):
    """A way in that also publishes what is stored already."""

    async def publish(self, releases: Sequence[Release]) -> None:
        """Publish jobs that are queued."""


class Closing(OneCluster, Protocol):
    """A way in that knows when its cluster is away."""

    @property
    def open(self) -> bool:
        """Whether jobs go around the cluster, because it counts as away."""


class EachCluster:
    """Sends each job into its cluster."""

    def __init__(self, clusters: Clusters, members: Sequence[OneCluster]) -> None:
        self._clusters = clusters
        self._members = members

    async def submit(self, jobs: Sequence[NewJob], *, whole: bool = False) -> list[Stored]:
        """Store jobs, those of each cluster in a commit of its own; a `whole` is at home in one cluster.

        What has a new home by now is handed in there. What one cluster refuses is RefusedJob where another took its
        part. Raises what `Intake.submit` raises when nothing was stored anywhere; OutcomeUnknown when something may
        have been.
        """
        version = (await self._clusters.known()).version
        if not whole:
            return await self._place_again(jobs, await self._submit(jobs), version)
        try:
            return await self._submit_whole(jobs)
        except ShardMoved:
            if not await self._clusters.newer(version, [job.id for job in jobs]):
                raise
            return await self._submit_whole(jobs)

    async def stop(self) -> None:
        """Stop every one of them."""
        await asyncio.gather(*(member.stop() for member in self._members))

    async def _place_again(self, jobs: Sequence[NewJob], stored: list[Stored], version: int) -> list[Stored]:
        moved = [place for place, one in enumerate(stored) if has_moved(one.verdict)]
        again = [jobs[place] for place in moved]
        newer = bool(moved) and await self._clusters.newer(version, [job.id for job in again])
        if len(moved) == len(jobs):
            return _placed(await self._submit(again) if newer else stored)
        if not newer:
            return stored
        try:
            answers = await self._submit(again)
        except TaskplatformError as error:
            answers = [_refused(job, error) for job in again]
        for place, answer in zip(moved, answers, strict=True):
            stored[place] = answer
        return stored

    async def _submit_whole(self, jobs: Sequence[NewJob]) -> list[Stored]:
        numbers = list((await self._clusters.known()).split(job.id for job in jobs))
        if len(numbers) > 1:
            raise InvalidInput("the jobs of an atomic batch have to be at home in one cluster")
        return await self._members[numbers[0]].submit(jobs, whole=True)

    async def _submit(self, jobs: Sequence[NewJob]) -> list[Stored]:
        parts = (await self._clusters.known()).split(job.id for job in jobs)
        if len(parts) == 1:
            (number,) = parts
            return await self._members[number].submit(jobs)
        by_id = {job.id: job for job in jobs}
        answers = await asyncio.gather(
            *(self._members[number].submit([by_id[each] for each in ids]) for number, ids in parts.items()),
            return_exceptions=True,
        )
        _raise_of(answers)
        stored: dict[UUID, Stored] = {}
        for ids, answer in zip(parts.values(), answers, strict=True):
            if isinstance(answer, TaskplatformError):
                stored |= {each: _refused(by_id[each], answer) for each in ids}
            elif not isinstance(answer, BaseException):
                stored |= dict(zip(ids, answer, strict=True))
        return [stored[job.id] for job in jobs]


class Intakes(EachCluster):
    """The intakes of all clusters as one."""

    def __init__(self, clusters: Clusters, members: Sequence[Publishing]) -> None:
        super().__init__(clusters, members)
        self._publishing = members

    async def publish(self, releases: Sequence[Release]) -> None:
        """Publish jobs that are queued already, and settle the outbox rows of each cluster there."""
        by_id = {release.envelope.id: release for release in releases}
        parts = (await self._clusters.known()).split(by_id)
        await asyncio.gather(
            *(self._publishing[number].publish([by_id[each] for each in ids]) for number, ids in parts.items())
        )


class Detours(EachCluster):
    """The ways around clusters that are away as one; it is open when all of them are."""

    def __init__(self, clusters: Clusters, members: Sequence[Closing], random: Random) -> None:
        super().__init__(clusters, members)
        self._closing = members
        self._random = random

    @property
    def open(self) -> bool:
        """Whether every cluster counts as away."""
        return all(member.open for member in self._closing)

    def any_shard(self) -> int:
        """Choose a shard for a job that may live anywhere, in a cluster that is there if one is."""
        away = [number for number, member in enumerate(self._closing) if member.open]
        return self._clusters.homes.any_shard(self._random, away)


def _raise_of(answers: Sequence[list[Stored] | BaseException]) -> None:
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in errors:
        if not isinstance(error, TaskplatformError):
            raise error
    if len(errors) == len(answers):
        # What may have been stored somewhere must not be called refused.
        raise next((error for error in errors if isinstance(error, OutcomeUnknown)), errors[0])


def _placed(stored: list[Stored]) -> list[Stored]:
    """Raise ShardMoved where all were refused by it: the same again may do, and no job is to blame."""
    errors = [one.verdict.error for one in stored if isinstance(one.verdict, RefusedJob) and has_moved(one.verdict)]
    if errors and len(errors) == len(stored):
        raise errors[0]
    return stored


def _refused(job: NewJob, error: TaskplatformError) -> Stored:
    return Stored(verdict=RefusedJob(id=job.id, error=error), state=job.state)
