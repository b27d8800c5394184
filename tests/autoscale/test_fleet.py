"""The autoscaler with real workers as processes: up with the load, down again, and nobody is killed over a job."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from taskplatform.autoscale.contract import LEASE, Choice, Member
from taskplatform.autoscale.drivers.process import Processes
from taskplatform.autoscale.loop import Autoscaler, Parts
from taskplatform.autoscale.policy import Rules
from taskplatform.autoscale.rules import Plan
from taskplatform.errors import BrokerUnavailable, SettingsError, StoreUnavailable
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.telemetry import new_metrics
from taskplatform.wiring import new_broker
from tests.autoscale.simulator import oscillations
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 90.0


class Scaled:
    """An autoscaler over a bench, in a thread; its workers are processes below this test."""

    def __init__(self, bench: Bench, **plan: Any) -> None:
        self.bench = bench
        # Every time of the plan is a tenth of what one would choose for real.
        rules = Rules(max_workers=3, target_seconds=1.0, stabilisation_seconds=4.0, idle_seconds=2.0)
        self.plan = Plan(**{"rules": rules, "least_life_seconds": 1.0, "grace_seconds": 25.0, **plan})
        self.settings = bench.settings.changed(
            autoscale_poll_seconds=0.5, worker_processes=1, lease_seconds=3.0, lease_renew_seconds=0.5
        )
        self.folder = bench.folder / "fleet"
        self.loop = asyncio.new_event_loop()
        self.thread = Thread(target=self.loop.run_forever)
        self.thread.start()
        self.wait(self._open())

    async def _open(self) -> None:
        self.stop = asyncio.Event()
        self.store = PostgresStore(self.bench.dsn)
        self.broker = new_broker(self.settings)
        await self.broker.start()
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        grace = self.plan.grace_seconds
        self.driver = Processes(self.settings, self.folder, inherited=environment, grace_seconds=grace)
        self.role = self.autoscaler("one")
        self.run: asyncio.Task[None] | None = None

    def autoscaler(self, holder: str, *, rules: Rules | None = None, **parts: Any) -> Autoscaler:
        made = Parts(metrics=new_metrics(), settings=self.settings, holder=holder, **parts)
        plan = replace(self.plan, rules=rules or self.plan.rules)
        return Autoscaler(self.store, self.broker, self.driver, {"default": plan}, made)

    def wait(self, call: Any, within_seconds: float = 60.0) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(within_seconds)

    def begin(self) -> None:
        async def begin() -> None:
            self.run = asyncio.create_task(self.role.run(self.stop))

        self.wait(begin())

    def end(self) -> None:
        async def end() -> None:
            self.stop.set()
            if self.run is not None:
                await self.run

        self.wait(end())

    def close(self) -> None:
        async def close() -> None:
            await self.driver.close()
            await self.broker.stop()
            await self.store.close()

        try:
            self.end()
            self.wait(close())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()

    def decisions(self) -> list[dict[str, Any]]:
        return self.bench.rows("SELECT desired, reason, facts FROM scale_decisions ORDER BY id")

    def sizes(self) -> list[int]:
        return [decision["desired"] for decision in self.decisions()]

    def members(self) -> list[Member]:
        found: list[Member] = self.wait(self.driver.members("default"))
        return found

    def expire_lease(self) -> None:
        self.bench.rows("UPDATE leases SET until = now() - interval '1 s' WHERE name = %s RETURNING 1", LEASE)

    def live(self) -> int:
        return self.bench.count("workers")

    def ends(self) -> set[str]:
        return {row["ended"] for row in self.bench.rows("SELECT ended FROM attempts")}


@pytest.fixture
def scaled(amqp_bench: Bench) -> Iterator[Callable[..., Scaled]]:
    """Makes autoscalers; all are closed, with their workers, when the test ends."""
    made: list[Scaled] = []

    def make(**plan: Any) -> Scaled:
        made.append(Scaled(amqp_bench, **plan))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_load_that_steps_up_tenfold_gets_its_workers_and_an_idle_pool_gives_them_back(
    scaled: Callable[..., Scaled],
) -> None:
    fleet = scaled()
    fleet.begin()
    jobs = fleet.bench.submit_many([("nap", (0.5,))] * 2)
    eventually(lambda: fleet.live() == 1, _START_SECONDS)
    eventually(lambda: fleet.bench.count("jobs") == 0, _START_SECONDS)

    jobs += fleet.bench.submit_many([("nap", (0.5,))] * 60)
    eventually(lambda: fleet.live() == 3, _START_SECONDS)
    eventually(lambda: fleet.bench.count("jobs") == 0, _START_SECONDS)
    eventually(lambda: fleet.live() == 0, _START_SECONDS)

    sizes = fleet.sizes()
    assert (max(sizes), sizes[-1]) == (3, 0)
    _judge_the_step(fleet.decisions())
    assert {fleet.bench.job(job)["state"] for job in jobs} == {"succeeded"}
    assert fleet.ends() <= {"succeeded", "released"}


def _judge_the_step(decisions: list[dict[str, Any]]) -> None:
    sizes = [one["desired"] for one in decisions]
    busy = [tick for tick, one in enumerate(decisions) if one["facts"]["ready"] or one["facts"]["running"]]
    seen = next(tick for tick in busy if decisions[tick]["facts"]["ready"] > 10)
    full = sizes.index(3, seen)
    gone = sizes.index(0, busy[-1])
    # At five seconds a decision, as they come for real: a minute, and two of the ten that are allowed.
    assert full - seen <= 12, sizes
    assert gone - busy[-1] <= 24, sizes
    assert oscillations(sizes[seen:]) <= 1, sizes


def test_a_worker_that_is_stopped_ends_its_job_first_and_an_idle_one_is_preferred(
    scaled: Callable[..., Scaled], tmp_path: Path
) -> None:
    fleet = scaled()
    marker = tmp_path / "go"
    fleet.wait(fleet.driver.grow("default", 2))
    eventually(lambda: fleet.live() == 2, _START_SECONDS)
    job = fleet.bench.submit("wait_for", str(marker))
    busy = fleet.bench.reached(job, "running")["worker"]

    members = fleet.members()
    fleet.begin()
    eventually(lambda: fleet.live() == 1, _START_SECONDS)
    assert fleet.bench.leases() == {busy}
    fleet.end()
    fleet.wait(fleet.driver.shrink("default", members, 0))
    eventually(lambda: fleet.bench.rows("SELECT FROM workers WHERE draining"), 30.0)
    marker.touch()

    assert fleet.bench.ended(job)["state"] == "succeeded"
    assert fleet.bench.attempts(job) == [(1, "succeeded")]
    eventually(lambda: fleet.members() == [], 30.0)


def test_one_of_two_autoscalers_acts_and_the_other_takes_over_the_fleet(scaled: Callable[..., Scaled]) -> None:
    fleet = scaled(rules=Rules(min_workers=1, max_workers=2))
    other = fleet.autoscaler("two", rules=Rules(min_workers=2, max_workers=2))
    fleet.wait(fleet.role.run_once())
    eventually(lambda: fleet.live() == 1, _START_SECONDS)
    (first,) = fleet.members()

    fleet.wait(other.run_once())
    assert (fleet.sizes(), [one.id for one in fleet.members()]) == ([1], [first.id])
    fleet.expire_lease()
    fleet.wait(other.run_once())
    taken_over = fleet.members()
    fleet.wait(fleet.role.run_once())

    assert fleet.sizes() == [1, 2]
    assert [one.id for one in fleet.members()] == [one.id for one in taken_over] == [first.id, taken_over[1].id]
    assert fleet.bench.rows("SELECT holder FROM leases WHERE name = %s", LEASE) == [{"holder": "two"}]


@pytest.mark.parametrize("woken", ["before it asks for its lease", "after the answer"])
def test_an_autoscaler_that_was_frozen_after_its_decision_does_not_act_on_it(
    scaled: Callable[..., Scaled], monkeypatch: pytest.MonkeyPatch, woken: str
) -> None:
    fleet = scaled(rules=Rules(min_workers=1))
    slept = 0.0
    role = fleet.autoscaler("one", clock=lambda: time.monotonic() + slept)
    record, keep = fleet.store.record_decisions, fleet.store.keep_lease

    async def lapsing(holder: str, choices: Sequence[Choice]) -> bool:
        kept = await record(holder, choices)
        fleet.expire_lease()
        return kept

    async def sleeping(*lease: Any) -> bool:
        nonlocal slept
        kept = await keep(*lease)
        slept += 60.0
        return kept

    if woken == "after the answer":
        monkeypatch.setattr(fleet.store, "keep_lease", sleeping)
    else:
        monkeypatch.setattr(fleet.store, "record_decisions", lapsing)
    fleet.wait(role.run_once())

    assert fleet.sizes() == [1]
    assert fleet.members() == []


def test_an_autoscaler_that_cannot_reach_postgres_does_not_call_itself_active(scaled: Callable[..., Scaled]) -> None:
    fleet = scaled()

    def active() -> bool:
        return b"tp_autoscaler_active 1.0" in fleet.role.metrics.render()[0]

    fleet.wait(fleet.role.run_once())
    assert active()

    fleet.wait(fleet.store.close())
    with pytest.raises(StoreUnavailable):
        fleet.wait(fleet.role.run_once())
    assert not active()


def test_a_driver_that_starts_again_finds_the_workers_of_the_one_before(scaled: Callable[..., Scaled]) -> None:
    fleet = scaled()
    fleet.wait(fleet.driver.grow("default", 1))
    (before,) = fleet.members()
    eventually(lambda: fleet.live() == 1, _START_SECONDS)

    with pytest.raises(SettingsError, match="another autoscaler"):
        Processes(fleet.settings, fleet.folder, grace_seconds=5.0)
    # As the system does for one that died.
    os.close(fleet.driver._lock)
    again = Processes(fleet.settings, fleet.folder, grace_seconds=5.0)
    (found,) = fleet.wait(again.members("default"))
    assert (found.id, found.pid) == (before.id, before.pid)

    fleet.wait(again.close())
    assert not any(fleet.folder.glob("*.json"))
    fleet.driver._lock = os.open(os.devnull, os.O_RDONLY)


def test_a_worker_that_died_is_replaced_and_its_job_runs_again(scaled: Callable[..., Scaled], tmp_path: Path) -> None:
    fleet = scaled(rules=Rules(min_workers=1, max_workers=1, target_seconds=1.0))
    marker = tmp_path / "go"
    fleet.begin()
    eventually(lambda: fleet.live() == 1, _START_SECONDS)
    (first,) = fleet.members()
    assert first.pid is not None
    job = fleet.bench.submit("wait_for", str(marker))
    fleet.bench.reached(job, "running")

    os.kill(first.pid, signal.SIGKILL)
    eventually(fleet.bench.rescue, _START_SECONDS)
    eventually(fleet.bench.release_due, _START_SECONDS)
    marker.touch()

    assert fleet.bench.ended(job, _START_SECONDS)["state"] == "succeeded"
    assert fleet.bench.attempts(job) == [(1, "lost"), (2, "succeeded")]
    assert [one.pid != first.pid for one in fleet.members()] == [True]


def test_a_frozen_worker_is_replaced_and_counts_again_when_it_moves(scaled: Callable[..., Scaled]) -> None:
    fleet = scaled(rules=Rules(min_workers=1, max_workers=1), least_life_seconds=0.0)
    fleet.begin()
    eventually(lambda: fleet.live() == 1, _START_SECONDS)
    (frozen,) = fleet.members()
    assert frozen.pid is not None

    os.killpg(frozen.pid, signal.SIGSTOP)
    try:
        eventually(lambda: fleet.decisions()[-1]["facts"]["silent"] == 1, _START_SECONDS)
        eventually(lambda: fleet.decisions()[-1]["facts"]["workers"] == 1, _START_SECONDS)
        assert frozen.id in {one.id for one in fleet.members() if not one.draining}
    finally:
        os.killpg(frozen.pid, signal.SIGCONT)

    eventually(lambda: fleet.decisions()[-1]["facts"]["silent"] == 0, _START_SECONDS)
    eventually(lambda: sum(not one.draining for one in fleet.members()) == 1, _START_SECONDS)


def test_a_fleet_keeps_its_size_while_the_broker_is_away(
    scaled: Callable[..., Scaled], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = scaled(rules=Rules(max_workers=2, stabilisation_seconds=0.0, idle_seconds=0.0), least_life_seconds=0.0)

    async def away(_: Any) -> dict[str, int]:
        raise BrokerUnavailable("away")

    fleet.wait(fleet.driver.grow("default", 1))
    eventually(lambda: fleet.live() == 1, _START_SECONDS)
    monkeypatch.setattr(fleet.broker, "depths", away)
    for _ in range(3):
        fleet.wait(fleet.role.run_once())

    assert fleet.sizes() == [1, 1, 1]
    reasons = {row["reason"] for row in fleet.bench.rows("SELECT reason FROM scale_decisions")}
    assert reasons == {"held"}
