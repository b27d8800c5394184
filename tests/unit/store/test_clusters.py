"""Which cluster is asked where any may answer, and for how long; and who tells the map."""

import asyncio
from typing import cast

import pytest

from taskplatform.errors import InvalidInput, OutcomeUnknown, ShardUnavailable, StoreUnavailable
from taskplatform.ids import SHARDS, Locator, new_job_id
from taskplatform.shards import KnownMap, ShardMap, spread
from taskplatform.store import clusters
from taskplatform.store.clusters import Cluster, Clusters


class _Member:
    def __init__(self, answer: str, *, frozen: bool = False, away: bool = False) -> None:
        self.answer = answer
        self.frozen = frozen
        self.away = away
        self.asked = 0

    async def ask(self) -> str:
        self.asked += 1
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


def test_what_can_be_asked_again_soon_waits_for_no_cluster_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "ANSWER_SECONDS", 3600.0)
    monkeypatch.setattr(clusters, "ASK_NEXT_SECONDS", 0.01)
    now = 0.0
    hanging = _Member("first", frozen=True)
    members = [cast("Cluster", member) for member in (hanging, _Member("second"))]
    asked = Clusters(members, clock=lambda: now)
    both = dict.fromkeys((0, 1), lambda member: cast("_Member", member).ask())

    answers = [asyncio.run(asked.prompt(both)) for _ in range(2)]
    counted = hanging.asked
    now += clusters.REST_SECONDS
    hanging.frozen = False
    later = asyncio.run(asked.prompt(both))

    assert (answers, counted, later) == ([["second"]] * 2, 1, ["first", "second"])


def test_when_all_hang_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "ASK_NEXT_SECONDS", 0.01)
    asked = Clusters([cast("Cluster", _Member("first", frozen=True))])

    for _ in range(2):
        with pytest.raises(ShardUnavailable, match="cluster 0"):
            asyncio.run(asked.prompt({0: lambda member: cast("_Member", member).ask()}))


class _Teller:
    """A cluster that knows a map, or stands still when it is asked for it."""

    def __init__(self, known: ShardMap, number: int, *, frozen: bool = False) -> None:
        self.known = known
        self.number = number
        self.frozen = frozen
        self.asked = asyncio.Event()
        self.error: Exception | None = None

    async def asked_again(self) -> None:
        self.asked.clear()
        await self.asked.wait()

    async def shard_map(self) -> KnownMap:
        self.asked.set()
        if self.error is not None:
            raise self.error
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
                await first.asked_again()
        else:
            assert await asked.newer(before, [new_job_id(Locator(region=0, shard=7))])
        await asked.close()
    return asked.homes.version


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_cluster_that_hangs_keeps_nobody_from_the_map_that_another_one_tells(
    monkeypatch: pytest.MonkeyPatch, *, by_itself: bool
) -> None:
    assert asyncio.run(_followed(monkeypatch, by_itself=by_itself)) == 2


@pytest.mark.parametrize("error", [ValueError("nobody has thought of this"), InvalidInput("no such table")])
def test_a_cluster_that_fails_unexpectedly_is_asked_for_its_map_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(clusters, "WATCH_SECONDS", 0.001)
    teller = _Teller(ShardMap(1, (0,) * SHARDS), 0)

    async def followed() -> int:
        asked = Clusters([cast("Cluster", teller)])
        async with asyncio.timeout(30):
            await asked.open()
            teller.error = error
            await teller.asked_again()
            await teller.asked_again()
            teller.error, teller.known = None, ShardMap(2, (0,) * SHARDS)
            await teller.asked_again()
            await teller.asked_again()
            await asked.close()
        return asked.homes.version

    assert asyncio.run(followed()) == 2
