"""What callers hear of a submission of which clusters refuse a part, or all."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from api.clusters import EachCluster
from taskplatform.errors import OutcomeUnknown, ShardMoved, ShardUnavailable
from taskplatform.ids import Locator, new_job_id
from taskplatform.intake import Stored
from taskplatform.job import NewJob, State
from taskplatform.shards import Homes, ShardMap, spread
from taskplatform.store.contract import Accepted, RefusedJob
from tests.fixtures.store import a_job


class Failing:
    """A way into a cluster that stores nothing, as far as it knows."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def submit(self, jobs: Sequence[NewJob], *, whole: bool = False) -> list[Stored]:
        """Fail."""
        raise self._error

    async def stop(self) -> None:
        """Do nothing."""


class Storing:
    """A way into a cluster that stores what it gets, but for the jobs that it says are at home elsewhere."""

    def __init__(self, strangers: Sequence[UUID] = ()) -> None:
        self._strangers = strangers
        self.asked: list[list[UUID]] = []

    async def submit(self, jobs: Sequence[NewJob], *, whole: bool = False) -> list[Stored]:
        """Store jobs."""
        self.asked.append([job.id for job in jobs])
        return [
            Stored(
                verdict=RefusedJob(id=job.id, error=ShardMoved("moved"))
                if job.id in self._strangers
                else Accepted(id=job.id, created_at=datetime(2026, 1, 1, tzinfo=UTC), outbox_id=None),
                state=State.QUEUED,
            )
            for job in jobs
        ]

    async def stop(self) -> None:
        """Do nothing."""


class TwoClusters:
    """Where the shards are at home; what is read again may be a new map."""

    def __init__(self, *, moved: bool = False) -> None:
        self._homes = Homes(2)
        self._homes.adopt(ShardMap(1, spread(2)))
        self._moved = moved

    async def known(self) -> Homes:
        """Give a map of two clusters."""
        return self._homes

    async def newer(self, version: int, ids: Iterable[UUID]) -> bool:
        """Hear that the first cluster is the home of all."""
        return self._moved and self._homes.adopt(ShardMap(2, (0,) * 256))


def jobs_of(*shards: int) -> list[NewJob]:
    return [a_job(id=new_job_id(Locator(region=0, shard=shard))) for shard in shards]


def test_what_one_cluster_may_have_stored_is_not_called_refused() -> None:
    intake = EachCluster(
        cast(Any, TwoClusters()), [Failing(ShardUnavailable("away")), Failing(OutcomeUnknown("cut off"))]
    )

    with pytest.raises(OutcomeUnknown):
        asyncio.run(intake.submit(jobs_of(1, 200)))


@pytest.mark.parametrize("shards", [(200, 201), (1, 200, 201)])
def test_only_a_job_that_was_refused_is_placed_again(shards: tuple[int, ...]) -> None:
    jobs = jobs_of(*shards)
    moved = jobs[-1]
    first, second = Storing(), Storing(strangers=[moved.id])
    intake = EachCluster(cast(Any, TwoClusters(moved=True)), [first, second])

    stored = asyncio.run(intake.submit(jobs))

    assert [(one.verdict.id, type(one.verdict)) for one in stored] == [(job.id, Accepted) for job in jobs]
    assert first.asked[-1] == [moved.id]
    assert len(second.asked) == 1


@pytest.mark.parametrize(
    ("error", "moved"),
    [(ShardUnavailable("away"), True), (OutcomeUnknown("cut off"), True), (ShardMoved("moved"), False)],
)
def test_a_batch_that_was_refused_as_a_whole_and_finds_no_home_is_not_called_rejected(
    error: Exception, *, moved: bool
) -> None:
    jobs = jobs_of(200, 201)
    intake = EachCluster(
        cast(Any, TwoClusters(moved=moved)), [Failing(error), Storing(strangers=[job.id for job in jobs])]
    )

    with pytest.raises(type(error)):
        asyncio.run(intake.submit(jobs))


def test_a_batch_that_its_new_home_refuses_too_is_not_called_rejected() -> None:
    jobs = jobs_of(200, 201)
    moving = [Storing(strangers=[job.id for job in jobs]) for _ in range(2)]

    with pytest.raises(ShardMoved):
        asyncio.run(EachCluster(cast(Any, TwoClusters(moved=True)), moving).submit(jobs))

    assert [len(each.asked) for each in moving] == [1, 1]


def test_a_job_that_finds_no_home_is_refused_and_its_neighbours_are_not() -> None:
    jobs = jobs_of(200, 201)
    intake = EachCluster(cast(Any, TwoClusters(moved=True)), [Failing(ShardUnavailable("away")), Storing([jobs[0].id])])

    stored = asyncio.run(intake.submit(jobs))

    assert [type(one.verdict) for one in stored] == [RefusedJob, Accepted]
