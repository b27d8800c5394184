"""What callers hear of a submission that every cluster failed to store."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from api.lanes import Lanes
from taskplatform.errors import OutcomeUnknown, ShardUnavailable
from taskplatform.ids import Locator, new_job_id
from taskplatform.intake import Stored
from taskplatform.job import NewJob
from taskplatform.shards import Homes, ShardMap, spread
from tests.fixtures.store import a_job


class Failing:
    """A lane into a cluster that stores nothing, as far as it knows."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def submit(self, jobs: Sequence[NewJob], *, whole: bool = False) -> list[Stored]:
        """Fail."""
        raise self._error

    async def stop(self) -> None:
        """Do nothing."""


class TwoClusters:
    """Where the shards are at home."""

    async def known(self) -> Homes:
        """Give a map of two clusters."""
        homes = Homes(2)
        homes.adopt(ShardMap(1, spread(2)))
        return homes


def test_what_one_cluster_may_have_stored_is_not_called_refused() -> None:
    lanes = Lanes(cast(Any, TwoClusters()), [Failing(ShardUnavailable("away")), Failing(OutcomeUnknown("cut off"))])
    jobs = [a_job(id=new_job_id(Locator(region=0, shard=shard))) for shard in (1, 200)]

    with pytest.raises(OutcomeUnknown):
        asyncio.run(lanes.submit(jobs))
