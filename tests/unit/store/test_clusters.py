"""Which cluster is asked where any may answer, and for how long; and who tells the map."""

import asyncio
from typing import cast

import pytest

from taskplatform.errors import OutcomeUnknown, ShardUnavailable, StoreUnavailable
from taskplatform.ids import SHARDS, Locator, new_job_id
from taskplatform.shards import KnownMap, ShardMap, spread
from taskplatform.store import clusters
from taskplatform.store.clusters import Cluster, Clusters


class _Member:
    def __init__(self, answer: str, *, frozen: bool = False, away: bool = False) -> None:
        self.answer = answer
        self.frozen = frozen
        self.away = away

    async def ask(self) -> str:
        if self.away:
            raise StoreUnavailable("gone")
        if self.frozen:
            await asyncio.Event().wait()
        return self.answer


async def _anyone(*members: _Member) -> str:
    return await Clusters([cast("Cluster", member) for member in members]).anyone(
        lambda member: cast("_Member", member).ask()
    )


def test_a_cluster_that_hangs_leaves_time_to_ask_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # The next one is asked although nothing but the shorter of the two waits ever ends.
    monkeypatch.setattr(clusters, "ANSWER_SECONDS", 3600.0)
    monkeypatch.setattr(clusters, "ASK_NEXT_SECONDS", 0.01)

    assert asyncio.run(_anyone(_Member("first", frozen=True), _Member("second"))) == "second"


def test_when_nobody_answers_all_are_named() -> None:
    with pytest.raises(ShardUnavailable, match="clusters 0, 1"):
        asyncio.run(_anyone(_Member("first", away=True), _Member("second", away=True)))


@pytest.mark.parametrize(("writes", "error"), [(True, OutcomeUnknown), (False, ShardUnavailable)])
def test_only_a_write_that_is_cut_off_may_have_happened(
    monkeypatch: pytest.MonkeyPatch, *, writes: bool, error: type[Exception]
) -> None:
    monkeypatch.setattr(clusters, "ANSWER_SECONDS", 0.01)
    members = [cast("Cluster", _Member("first")), cast("Cluster", _Member("second", frozen=True))]

    with pytest.raises(error):
        asyncio.run(Clusters(members).all(lambda member: cast("_Member", member).ask(), writes=writes))


class _Teller:
    """A cluster that knows a map, or stands still when it is asked for it."""

    def __init__(self, known: ShardMap, number: int, *, frozen: bool = False) -> None:
        self.known = known
        self.number = number
        self.frozen = frozen
        self.asked = asyncio.Event()

    async def shard_map(self) -> KnownMap:
        self.asked.set()
        if self.frozen:
            await asyncio.Event().wait()
        return KnownMap(self.known, self.number)

    async def close(self) -> None:
        pass


async def _followed(monkeypatch: pytest.MonkeyPatch, *, by_itself: bool) -> int:
    monkeypatch.setattr(clusters, "ANSWER_SECONDS", 3600.0)
    monkeypatch.setattr(clusters, "WATCH_SECONDS", 0.001 if by_itself else 3600.0)
    first = _Teller(ShardMap(1, spread(2)), 0)
    asked = Clusters([cast("Cluster", first), cast("Cluster", _Teller(first.known, 1, frozen=True))])
    async with asyncio.timeout(60):
        await asked.open()
        before = asked.homes.version
        first.known = ShardMap(2, (1,) * SHARDS)
        if by_itself:
            for _ in range(2):
                # When it is asked a second time, what it told the first time is known.
                first.asked.clear()
                await first.asked.wait()
        else:
            assert await asked.newer(before, [new_job_id(Locator(region=0, shard=7))])
        await asked.close()
    return asked.homes.version


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_cluster_that_hangs_keeps_nobody_from_the_map_that_another_one_tells(
    monkeypatch: pytest.MonkeyPatch, *, by_itself: bool
) -> None:
    assert asyncio.run(_followed(monkeypatch, by_itself=by_itself)) == 2
