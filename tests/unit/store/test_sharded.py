"""Who waits for a cluster that stands still, and who does not."""

import asyncio
from collections.abc import Sequence
from typing import cast
from uuid import UUID

import pytest

from taskplatform.freshness import Position
from taskplatform.ids import Locator, new_job_id
from taskplatform.shards import KnownMap, ShardMap, spread
from taskplatform.store import clusters
from taskplatform.store.clusters import Cluster
from taskplatform.store.sharded import ShardedStore


class _Member:
    """A cluster all of whose jobs have ended; it may stand still when it is asked for them."""

    def __init__(self, number: int, *, frozen: bool) -> None:
        self._number = number
        self._frozen = frozen

    async def shard_map(self) -> KnownMap:
        return KnownMap(ShardMap(1, spread(2)), self._number)

    async def done_among(self, ids: Sequence[UUID], seen: Position | None) -> set[UUID]:
        if self._frozen:
            await asyncio.Event().wait()
        return set(ids)


def test_whoever_waits_for_a_job_to_end_waits_for_no_other_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "ANSWER_SECONDS", 3600.0)
    monkeypatch.setattr(clusters, "ASK_NEXT_SECONDS", 0.01)
    store = ShardedStore([cast("Cluster", _Member(number, frozen=number == 0)) for number in (0, 1)])
    lost, kept = (new_job_id(Locator(region=0, shard=shard)) for shard in (1, 200))

    async def looked() -> set[UUID]:
        async with asyncio.timeout(30):
            return await store.done_among([lost, kept])

    assert asyncio.run(looked()) == {kept}
