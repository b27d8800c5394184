"""The autoscaler's round: hold the lease, measure, decide for every pool, keep the decisions, and only then act."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from taskplatform.autoscale.contract import LEASE, Choice, DecisionRecord, Driver, Measurement, ScaleStore
from taskplatform.autoscale.load import (
    Absences,
    Standing,
    Surroundings,
    longest_run,
    roll_call,
    sample_of,
    size_with_silent,
    standings,
    victims,
)
from taskplatform.autoscale.policy import Decision, Hold, Memory, Sample, decide
from taskplatform.autoscale.rules import Plan
from taskplatform.broker.contract import Broker
from taskplatform.errors import Unavailable
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.telemetry import Metrics
from taskplatform.topology import work_queues

KEEP_DAYS = 7.0
WINDOW_SECONDS = 15.0
"""How long arrivals are counted for their rate."""
_LEASE_POLLS = 3
_LEAST_LEASE_SECONDS = 10.0
_PRUNE_ROUNDS = 100
_PRUNE_ROWS = 10_000
_STALE_POLLS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every autoscaler is made of; `holder` names this one."""

    metrics: Metrics
    settings: Settings
    holder: str
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What one round knows of all pools; without `depths` the broker is away."""

    began: float
    measured: Measurement
    depths: Mapping[str, int] | None
    used_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    choice: Choice
    fleet: Sequence[Standing]


class Autoscaler(Role):
    """Decides how many workers each pool has; of any number of autoscalers one acts at a time.

    What it decided is stored before it acts, in a statement that fails once the lease is lost, and before each act it
    asks for the lease once more: one that was frozen and replaced does nothing more. Without Postgres it does nothing:
    the fleet keeps its size.
    """

    name: ClassVar[str] = "autoscaler"

    def __init__(
        self, store: ScaleStore, broker: Broker, driver: Driver, plans: Mapping[str, Plan], parts: Parts
    ) -> None:
        super().__init__(parts.metrics, pause_seconds=parts.settings.autoscale_poll_seconds)
        self._store = store
        self._broker = broker
        self._driver = driver
        self._plans = plans
        self._holder = parts.holder
        self._settings = parts.settings
        self._clock = parts.clock
        self._memories: dict[str, Memory] | None = None
        self._absences: dict[str, Absences] = {}
        self._used_since: float | None = None
        self._rounds = 0

    async def run_once(self) -> bool:
        """Decide and act once, if this is the active autoscaler."""
        active = False
        try:
            active = await self._act_as_the_active()
        finally:
            # One that cannot reach Postgres holds no lease for long, and decides nothing.
            self.metrics.autoscaler_active.set(active)
            if not active:
                self._absences = {pool: known.after_a_gap() for pool, known in self._absences.items()}
        return False

    async def stop(self) -> None:
        """Give up the lease, so that the next autoscaler need not wait until it lapses."""
        await self._store.yield_lease(LEASE, self._holder)

    async def _act_as_the_active(self) -> bool:
        began = self._clock()
        if not await self._store.hold_lease(LEASE, self._holder, self._lease_seconds):
            self._rest_in_the_second_row()
            return False
        if self._memories is None:
            self._memories = await self._remembered()
            self._log.info("This autoscaler is the active one", holder=self._holder)
        look = await self._look(began)
        pools = [pool for name in self._plans if (pool := await self._decide(name, look)) is not None]
        if not await self._store.record_decisions(self._holder, [pool.choice for pool in pools]):
            self._rest_in_the_second_row()
            return False
        for pool in pools:
            if pool.choice.decision.desired == pool.choice.decision.workers:
                continue
            if not await self._still_active():
                self._rest_in_the_second_row()
                return False
            await self._act(pool, look.measured)
        await self._prune()
        return True

    @property
    def _lease_seconds(self) -> float:
        return max(self.pause_seconds * _LEASE_POLLS, _LEAST_LEASE_SECONDS)

    @property
    def _window_seconds(self) -> float:
        return max(WINDOW_SECONDS * self.pause_seconds / 5.0, self.pause_seconds)

    def _rest_in_the_second_row(self) -> None:
        if self._memories is not None:
            self._log.warning("Another autoscaler is the active one now", holder=self._holder)
        self._memories = None
        self._used_since = None

    async def _still_active(self) -> bool:
        asked = self._clock()
        kept = await self._store.keep_lease(LEASE, self._holder, self._lease_seconds)
        # One that was frozen after the answer was given finds it older than the lease.
        return kept and self._clock() - asked < self._lease_seconds

    async def _remembered(self) -> dict[str, Memory]:
        # What the autoscaler before this one recommended counts: a change of the active one shrinks no fleet.
        memories = {}
        for pool, plan in self._plans.items():
            longest = max(plan.rules.stabilisation_seconds, plan.rules.idle_seconds)
            limit = min(int(longest / self.pause_seconds) + 1, 1000)
            memories[pool] = recalled(await self._store.decisions(pool, limit), longest)
        return memories

    async def _look(self, began: float) -> _Look:
        used_seconds = 0.0 if self._used_since is None else began - self._used_since
        self._used_since = began
        measured = await self._store.measure(self._window_seconds)
        return _Look(began=began, measured=measured, depths=await self._depths(), used_seconds=used_seconds)

    async def _decide(self, pool: str, look: _Look) -> _Pool | None:
        try:
            members = await self._driver.members(pool)
        except Unavailable as error:
            self._absences[pool] = self._absences.get(pool, Absences()).after_a_gap()
            self._tell_trouble(pool, "cannot be looked at", error)
            return None
        self.metrics.mode.labels(component=f"driver:{pool}").set(0)
        fleet, self._absences[pool] = roll_call(
            standings(members, [worker for worker in look.measured.workers if worker.pool == pool]),
            self._absences.get(pool, Absences()),
            look.measured.at,
            patience_seconds=self._settings.lease_seconds,
        )
        plan = self._plans[pool]
        sample = sample_of(pool, look.measured, fleet, plan, self._surroundings(pool, look))
        memories = self._memories or {}
        decision, memories[pool] = decide(plan.rules, sample, memories.get(pool, Memory()))
        self._show(pool, sample, decision)
        used = len(fleet) * look.used_seconds
        self.metrics.worker_seconds_total.labels(pool=pool).inc(used)
        return _Pool(choice=Choice(pool=pool, sample=sample, decision=decision, worker_seconds=used), fleet=fleet)

    def _surroundings(self, pool: str, look: _Look) -> Surroundings:
        holds = [Hold.BROKER_AWAY] if look.depths is None else []
        if self._clock() - look.began > self.pause_seconds * _STALE_POLLS:
            holds.append(Hold.STALE)
        return Surroundings(
            messages=sum((look.depths or {}).get(queue, 0) for queue in work_queues(pool)),
            window_seconds=self._window_seconds,
            default_slots=_slots(self._settings),
            holds=holds,
        )

    async def _depths(self) -> Mapping[str, int] | None:
        try:
            return await self._broker.depths([queue for pool in self._plans for queue in work_queues(pool)])
        except Unavailable as error:
            self._log.info("The broker cannot be asked, every fleet keeps its size", trouble=str(error))
            return None

    async def _act(self, pool: _Pool, measured: Measurement) -> None:
        decision, name = pool.choice.decision, pool.choice.pool
        try:
            if decision.desired > decision.workers:
                most = self._plans[name].rules.max_workers
                await self._driver.grow(name, size_with_silent(pool.fleet, decision.desired, most))
            else:
                await self._shrink(pool, measured)
        except Unavailable as error:
            self._tell_trouble(name, "cannot be changed", error)
            return
        self._log.info(
            "Scaled", pool=name, workers=decision.workers, desired=decision.desired, reason=str(decision.reason)
        )

    async def _shrink(self, pool: _Pool, measured: Measurement) -> None:
        decision, name = pool.choice.decision, pool.choice.pool
        found = victims(
            pool.fleet,
            decision.workers - decision.desired,
            self._plans[name],
            longest_run_seconds=longest_run(name, measured),
        )
        if found:
            left = decision.workers + pool.choice.sample.silent - len(found)
            await self._driver.shrink(name, found, left)

    async def _prune(self) -> None:
        self._rounds += 1
        if self._rounds % _PRUNE_ROUNDS == 1:
            await self._store.prune_decisions(KEEP_DAYS, _PRUNE_ROWS)

    def _show(self, pool: str, sample: Sample, decision: Decision) -> None:
        gauge = self.metrics.pool_workers
        running = sample.workers - sample.starting
        counted = {
            "running": running,
            "starting": sample.starting,
            "draining": sample.draining,
            "silent": sample.silent,
        }
        for state, count in {**counted, "desired": decision.desired}.items():
            gauge.labels(pool=pool, state=state).set(count)
        self.metrics.pool_slots.labels(pool=pool, kind="keep").set(decision.keep_slots)
        self.metrics.pool_slots.labels(pool=pool, kind="drain").set(decision.drain_slots)
        self.metrics.scale_decisions_total.labels(pool=pool, reason=str(decision.reason)).inc()

    def _tell_trouble(self, pool: str, what: str, error: Unavailable) -> None:
        self.metrics.mode.labels(component=f"driver:{pool}").set(1)
        self._log.warning(f"The workers of a pool {what}", pool=pool, trouble=str(error))


def recalled(records: Sequence[DecisionRecord], longest_seconds: float) -> Memory:
    """Make the memory that led on from stored decisions, the newest of which comes first."""
    if not records:
        return Memory()
    newest = records[0].at.timestamp()
    lately = [one for one in reversed(records) if newest - one.at.timestamp() <= longest_seconds]
    busy = [one.at.timestamp() for one in lately if one.facts["ready"] or one.facts["running"]]
    return Memory(
        recommended=tuple((one.at.timestamp(), int(one.facts["recommended"])) for one in lately),
        busy_at=busy[-1] if busy else lately[0].at.timestamp(),
    )


def _slots(settings: Settings) -> int:
    return settings.worker_concurrency_jobs if settings.worker_kind == "async" else settings.worker_processes
