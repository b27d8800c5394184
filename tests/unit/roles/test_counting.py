"""Counts of everything: one at a time, seldom where they are slow, and an old one rather than a long wait."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import structlog

from taskplatform.census import Census
from taskplatform.counting import LEAST_REST_SECONDS, MOST_REST_SECONDS, RESTS_PER_COUNT, Counting
from taskplatform.errors import StoreUnavailable
from taskplatform.job import State
from taskplatform.overview import Glance, Overview, Totals, Waiting
from taskplatform.service import LONGEST_WAIT_SECONDS
from taskplatform.settings import Settings
from taskplatform.store.watching import Crowd, WatchStore
from taskplatform.telemetry import new_metrics

GLANCE = Glance(
    at=datetime(2026, 1, 1, tzinfo=UTC), workers=[], outbox=0, totals=Totals(accepted=0, attempts=0, ended=0, dead=0)
)


@dataclass
class Watch:
    """A store whose counts take `seconds` on a clock that only they move, or never end."""

    seconds: float = 0.0
    now: float = 0.0
    counts: int = 0
    away: bool = False
    endless: bool = False
    crowds: list[Crowd] = field(default_factory=list)
    traces: list[dict[str, Any]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def census(self) -> list[Crowd]:
        self.counts += 1
        self.traces.append(structlog.contextvars.get_contextvars())
        if self.away:
            self.now += self.seconds
            raise StoreUnavailable("away")
        if self.endless:
            await asyncio.Event().wait()
        self.now += self.seconds
        return self.crowds

    async def unreplayed_letters(self) -> dict[tuple[str, str], int]:
        return {("jobs.default.dead", "poison"): 2, ("jobs.gpu.dead", "poison"): 1}


def counting(watch: Watch) -> Counting:
    return Counting(cast(WatchStore, watch), clock=watch.clock)


async def looks(watch: Watch, number: int) -> list[Overview]:
    one = counting(watch)
    return list(await asyncio.gather(*(one.overview(GLANCE) for _ in range(number))))


def test_what_is_counted_is_put_together_by_pool_and_state() -> None:
    crowds = [
        Crowd(pool="default", priority="low", state=State.QUEUED, gate="", jobs=2, oldest_seconds=7.0),
        Crowd(pool="default", priority="high", state=State.QUEUED, gate="", jobs=3, oldest_seconds=1.0),
        Crowd(pool="gpu", priority="low", state=State.SCHEDULED, gate="", jobs=1, oldest_seconds=-50.0),
    ]

    (found,) = asyncio.run(looks(Watch(crowds=crowds), 1))

    assert found.pools == {
        "default": {"queued": Waiting(jobs=5, oldest_seconds=7.0)},
        "gpu": {"scheduled": Waiting(jobs=1, oldest_seconds=0.0)},
    }
    assert found.dead_letters == 3


def test_many_who_ask_at_once_share_one_count() -> None:
    watch = Watch()

    asyncio.run(looks(watch, 20))

    assert watch.counts == 1


def test_a_slow_count_is_given_until_it_has_paid_for_itself() -> None:
    watch = Watch(seconds=2.0)

    async def ask() -> list[float]:
        one = counting(watch)
        await one.overview(GLANCE)
        ages = []
        for now in (50.0, 2.0 * RESTS_PER_COUNT - 1.0, 2.0 * RESTS_PER_COUNT + 1.0):
            watch.now = now
            ages.append((await one.overview(GLANCE)).counted_seconds_ago)
        return ages

    assert asyncio.run(ask()) == [50.0, 99.0, 2.0]
    assert watch.counts == 2


def test_while_a_count_does_not_end_the_one_before_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskplatform.counting.PATIENCE_SECONDS", 0.01)
    watch = Watch()

    async def ask() -> float:
        one = counting(watch)
        await one.overview(GLANCE)
        watch.now, watch.endless = 30.0, True
        found = await one.overview(GLANCE)
        await one.stop()
        return found.counted_seconds_ago

    assert asyncio.run(ask()) == 30.0


def test_a_store_that_cannot_count_says_so_and_is_asked_again() -> None:
    watch = Watch(away=True)

    async def ask() -> int:
        one = counting(watch)
        with pytest.raises(StoreUnavailable):
            await one.overview(GLANCE)
        watch.away = False
        watch.now += LEAST_REST_SECONDS
        return (await one.overview(GLANCE)).dead_letters

    assert asyncio.run(ask()) == 3


def test_a_count_that_fails_late_is_rested_from_and_does_not_hide_the_one_before() -> None:
    watch = Watch(seconds=1.0)

    async def ask() -> list[float]:
        one = counting(watch)
        await one.overview(GLANCE)
        watch.now, watch.away = 100.0, True
        ages = []
        for now in (100.0, 101.0 + RESTS_PER_COUNT - 0.5, 101.0 + RESTS_PER_COUNT + 0.5):
            watch.now = now
            ages.append((await one.overview(GLANCE)).counted_seconds_ago)
        return ages

    assert asyncio.run(ask()) == [101.0, 150.5, 152.5]
    assert watch.counts == 3


def test_while_a_failed_count_is_rested_from_and_there_is_no_other_nobody_waits() -> None:
    watch = Watch(seconds=60.0, away=True)

    async def ask() -> None:
        one = counting(watch)
        for now in (0.0, 60.0 + MOST_REST_SECONDS - 1.0, 60.0 + MOST_REST_SECONDS + 1.0):
            watch.now = now
            with pytest.raises(StoreUnavailable, match="away"):
                await one.overview(GLANCE)

    asyncio.run(ask())

    assert watch.counts == 2


def test_a_count_is_no_part_of_the_request_that_began_it() -> None:
    watch = Watch()

    with structlog.contextvars.bound_contextvars(trace_id="of a request"):
        asyncio.run(looks(watch, 1))

    assert watch.traces == [{}]


@pytest.mark.parametrize(("seconds", "least"), [(0.0, 0.0), (2.0, 2.0 * RESTS_PER_COUNT), (60.0, MOST_REST_SECONDS)])
def test_the_census_rests_after_a_failure_that_took_long(seconds: float, least: float) -> None:
    watch = Watch(seconds=seconds, away=True)
    census = Census(cast(WatchStore, watch), new_metrics(), Settings(), clock=watch.clock)

    with pytest.raises(StoreUnavailable):
        asyncio.run(census.run_once())

    assert least <= census.wait_after_failure() <= least + LONGEST_WAIT_SECONDS
