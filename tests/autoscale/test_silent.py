"""Workers that fall silent and workers that never come: the former are replaced, and no fleet grows without a bound."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import pytest

from taskplatform.autoscale.contract import Measurement, Member
from taskplatform.autoscale.loop import Autoscaler, Parts
from taskplatform.autoscale.policy import Rules
from taskplatform.autoscale.rules import Plan
from taskplatform.errors import DriverUnavailable, StoreUnavailable
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.store.postgres.work import PostgresWorkStore
from taskplatform.store.working import Lease
from taskplatform.telemetry import new_metrics
from taskplatform.wiring import new_broker
from tests.fixtures.celery import Bench

pytestmark = pytest.mark.slow

MOST = 3
ROUNDS = 20
BETWEEN_SECONDS = 60.0
"""Between two rounds, by the clock that the autoscaler goes by: longer than the lease of a worker."""


class LaterStore(PostgresStore):
    """Postgres, whose clock runs ahead as far as a test wants; it can be away."""

    later = 0.0
    away = False

    async def measure(self, window_seconds: float) -> Measurement:
        """Measure, some time later."""
        if self.away:
            raise StoreUnavailable("away")
        measured = await super().measure(window_seconds)
        return replace(measured, at=measured.at + self.later)


@dataclass
class Posts:
    """A driver whose workers do nothing by themselves, not even come to their leases; it can be away."""

    fleet: list[Member] = field(default_factory=list)
    started: int = 0
    away: bool = False

    async def members(self, pool: str) -> list[Member]:
        """Give who is there."""
        del pool
        if self.away:
            raise DriverUnavailable("away")
        return list(self.fleet)

    async def grow(self, pool: str, size: int) -> None:
        """Post so many, as one who patches a number does: to ask for fewer takes some away."""
        assert size >= len(self.fleet)
        while len(self.fleet) < size:
            self.started += 1
            name = f"worker-{self.started}"
            self.fleet.append(Member(id=name, pool=pool, host=name, pid=None, age_seconds=10_000.0))

    async def shrink(self, pool: str, victims: Sequence[Member], size: int) -> None:
        """Take them away."""
        del pool, size
        gone = {victim.id for victim in victims}
        self.fleet = [member for member in self.fleet if member.id not in gone]

    async def close(self) -> None:
        """Nothing is held."""


class Scene:
    """An autoscaler over a real store and a real broker; the fleet is to be `workers` strong."""

    def __init__(self, bench: Bench, workers: int) -> None:
        self.bench = bench
        self.posts = Posts()
        self.heard: set[str] = set()
        self.store = LaterStore(bench.dsn)
        self.broker = new_broker(bench.settings)
        plan = Plan(rules=Rules(min_workers=workers, max_workers=MOST))
        parts = Parts(metrics=new_metrics(), settings=bench.settings, holder="one")
        self.role = Autoscaler(self.store, self.broker, self.posts, {"default": plan}, parts)

    async def __aenter__(self) -> Self:
        await self.broker.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.broker.stop()
        await self.store.close()

    async def round(self) -> int:
        """Do a round some time after the last, and give the size of the fleet."""
        self.store.later += BETWEEN_SECONDS
        await self.role.run_once()
        return len(self.posts.fleet)

    def new_ones_come_to_their_leases(self) -> None:
        with PostgresWorkStore(self.bench.dsn) as work:
            for name in {member.host for member in self.posts.fleet} - self.heard:
                work.renew(Lease(worker=name, pool="default", host=name, pid=1, processes=1, lease_seconds=300.0))
                self.heard.add(name)

    def all_leases_end(self) -> None:
        self.bench.rows("DELETE FROM workers RETURNING id")

    def silent(self) -> int:
        (newest,) = self.bench.rows("SELECT facts FROM scale_decisions ORDER BY id DESC LIMIT 1")
        return int(newest["facts"]["silent"])


def test_workers_none_of_which_ever_comes_to_its_lease_are_no_more_than_the_maximum(amqp_bench: Bench) -> None:
    async def sizes() -> list[int]:
        async with Scene(amqp_bench, MOST) as scene:
            return [await scene.round() for _ in range(ROUNDS)]

    assert set(asyncio.run(sizes())) == {MOST}


def test_workers_that_fall_silent_one_after_the_other_are_no_more_than_twice_the_maximum(amqp_bench: Bench) -> None:
    async def sizes() -> list[int]:
        found = []
        async with Scene(amqp_bench, MOST) as scene:
            for _ in range(ROUNDS):
                scene.new_ones_come_to_their_leases()
                await scene.round()
                scene.all_leases_end()
                found.append(await scene.round())
                found.append(await scene.round())
        return found

    assert max(asyncio.run(sizes())) == 2 * MOST


def test_the_metrics_tell_who_is_there_and_what_the_newest_decision_followed_from(amqp_bench: Bench) -> None:
    amqp_bench.submit_many([("nap", (0.0,))] * 60)

    async def play() -> Callable[..., float | None]:
        async with Scene(amqp_bench, 2) as scene:
            await scene.round()
            scene.new_ones_come_to_their_leases()
            await scene.round()
            scene.all_leases_end()
            await scene.round()
            await scene.round()
            return scene.role.metrics.registry.get_sample_value

    read = asyncio.run(play())
    newest, *before = amqp_bench.rows("SELECT desired, reason, facts FROM scale_decisions ORDER BY id DESC")
    states = ("running", "starting", "draining", "silent", "desired")
    counted = [read("tp_pool_workers", {"pool": "default", "state": state}) for state in states]
    slots = {kind: read("tp_pool_slots", {"pool": "default", "kind": kind}) for kind in ("keep", "drain")}
    reasons = [one["reason"] for one in (newest, *before)]

    silent = newest["facts"]["silent"]
    assert counted == [0, 0, 0, silent, newest["desired"]]
    assert silent > 0
    assert slots == {kind: newest["facts"][f"{kind}_slots"] for kind in slots}
    # 60 jobs of which nobody knows how long they take, a second each, within 30 s.
    assert slots["drain"] == 2.0
    told = {reason: read("tp_scale_decisions_total", {"pool": "default", "reason": reason}) for reason in reasons}
    assert told == Counter(reasons)


@pytest.mark.parametrize("trouble", ["the store is away", "the driver is away", "another one has been active"])
def test_two_looks_with_a_gap_between_them_are_not_one_long_absence(amqp_bench: Bench, trouble: str) -> None:
    async def play() -> list[Any]:
        async with Scene(amqp_bench, MOST) as scene:
            await scene.round()
            scene.new_ones_come_to_their_leases()
            await scene.round()
            scene.all_leases_end()
            await scene.round()
            await _a_gap(scene, trouble)
            after = await scene.round(), scene.silent()
            return [after, (await scene.round(), scene.silent())]

    # Those who were heard before the gap can still be missed after it.
    assert asyncio.run(play()) == [(MOST, 0), (2 * MOST, MOST)]


async def _a_gap(scene: Scene, trouble: str) -> None:
    scene.store.away = trouble == "the store is away"
    scene.posts.away = trouble == "the driver is away"
    if trouble == "another one has been active":
        await scene.role.stop()
        assert await scene.store.hold_lease("autoscaler", "two", 60.0)
    try:
        await scene.round()
    except StoreUnavailable:
        assert scene.store.away
    scene.store.away = scene.posts.away = False
    await scene.store.yield_lease("autoscaler", "two")
