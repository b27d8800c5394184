"""How many workers a pool needs: Little's law and the time to drain, within limits; equal values, equal decisions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LATE_GROWTH: Final = 0.25
"""The share by which a fleet grows when jobs are late although the model says that it suffices."""


class Hold(StrEnum):
    """Why a fleet keeps its size: what was measured says nothing about what is needed."""

    STALE = "stale"
    BROKER_AWAY = "broker_away"
    FAILING = "failing"


class Reason(StrEnum):
    """What decided."""

    LOAD = "load"
    LATE = "late"
    IDLE = "idle"
    FLOOR = "floor"
    CEILING = "ceiling"
    BUDGET = "budget"
    SURGE = "surge"
    STABILISING = "stabilising"
    PINNED = "pinned"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the owner of a pool wants.

    `target_seconds` is how long a ready job may wait for a slot. One decision adds `surge_workers`, or doubles the
    fleet where that is more. A fleet shrinks to the largest size that was recommended within `stabilisation_seconds`.
    Without work for `idle_seconds` only the minimum is left. A month may cost `budget_worker_hours`; when they are used
    up, `budget_workers` are left.
    """

    min_workers: int = 0
    max_workers: int = 10
    target_seconds: float = 30.0
    utilisation: float = 0.8
    surge_workers: int = 4
    stabilisation_seconds: float = 180.0
    idle_seconds: float = 60.0
    budget_worker_hours: float | None = None
    budget_workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A pool as it was measured at `at` (epoch seconds).

    `workers` run or start and do not drain; `starting` of them take no jobs yet. `silent` ones are there besides, and
    none of them: their leases ran out. `pinned` workers hold jobs that would not end within the grace of a drain.
    `slots` is how many jobs one worker runs at once. `floor_workers` is what the schedule asks for now.
    """

    at: float
    ready: int = 0
    ready_work_seconds: float = 0.0
    running: int = 0
    oldest_age_seconds: float = 0.0
    arrivals_per_second: float = 0.0
    service_seconds: float = 1.0
    slots: int = 1
    workers: int = 0
    starting: int = 0
    draining: int = 0
    silent: int = 0
    pinned: int = 0
    floor_workers: int = 0
    budget_used_hours: float = 0.0
    holds: tuple[Hold, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a decision needs to know of those before it: sizes that were recommended, and when there was work last."""

    recommended: tuple[tuple[float, int], ...] = ()
    busy_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many workers there should be, and each step that led there.

    `keep_slots` keep up with what arrives, `drain_slots` clear what is ready within the target; `needed` workers follow
    from both, `recommended` keeps to the limits of the pool, `desired` also to those of change.
    """

    at: float
    workers: int
    desired: int
    reason: Reason
    keep_slots: float
    drain_slots: float
    needed: int
    recommended: int


def decide(rules: Rules, sample: Sample, memory: Memory) -> tuple[Decision, Memory]:
    """Decide for one pool; gives also what the next decision has to remember."""
    busy = sample.ready > 0 or sample.running > 0
    busy_at = sample.at if busy or memory.busy_at is None else memory.busy_at
    offered = sample.arrivals_per_second * sample.service_seconds
    keep = offered / rules.utilisation
    drain = sample.ready_work_seconds / rules.target_seconds
    # What is free for the sake of utilisation drains a backlog too.
    needed, why = _needed(rules, sample, max(keep, offered + drain), idle_seconds=sample.at - busy_at)
    recommended, why = _within_limits(rules, sample, needed, why)
    window = tuple(one for one in memory.recommended if one[0] > sample.at - rules.stabilisation_seconds)
    window = (*window, (sample.at, recommended))
    desired, why = _step(rules, sample, recommended, max(size for _, size in window), why)
    decision = Decision(
        at=sample.at,
        workers=sample.workers,
        desired=desired,
        reason=why,
        keep_slots=keep,
        drain_slots=drain,
        needed=needed,
        recommended=recommended,
    )
    return decision, Memory(recommended=window, busy_at=busy_at)


def _needed(rules: Rules, sample: Sample, slots: float, *, idle_seconds: float) -> tuple[int, Reason]:
    if sample.ready == sample.running == 0 and idle_seconds >= rules.idle_seconds:
        return 0, Reason.IDLE
    needed, why = max(math.ceil(slots / sample.slots - 1e-9), 1), Reason.LOAD
    # While workers start, what is late says nothing about the size that is on its way.
    if sample.oldest_age_seconds > rules.target_seconds and not sample.starting:
        grown = sample.workers + max(math.ceil(LATE_GROWTH * sample.workers), 1)
        if grown > needed:
            needed, why = grown, Reason.LATE
    if sample.pinned > needed:
        return sample.pinned, Reason.PINNED
    return needed, why


def _within_limits(rules: Rules, sample: Sample, needed: int, why: Reason) -> tuple[int, Reason]:
    ceiling, capped_by = rules.max_workers, Reason.CEILING
    if rules.budget_worker_hours is not None and sample.budget_used_hours >= rules.budget_worker_hours:
        ceiling, capped_by = min(ceiling, rules.budget_workers), Reason.BUDGET
    floor = min(max(rules.min_workers, sample.floor_workers), ceiling)
    if needed > ceiling:
        return ceiling, capped_by
    if needed < floor:
        return floor, Reason.FLOOR
    return needed, why


def _step(rules: Rules, sample: Sample, wanted: int, lately: int, why: Reason) -> tuple[int, Reason]:
    if sample.holds:
        floor = max(rules.min_workers, sample.floor_workers)
        return min(max(sample.workers, floor), rules.max_workers), Reason.HELD
    if wanted > sample.workers:
        most = sample.workers + max(rules.surge_workers, sample.workers)
        return (most, Reason.SURGE) if wanted > most else (wanted, why)
    if why is Reason.BUDGET:
        # A budget that is used up is not stretched by what was needed before.
        return wanted, why
    kept = min(sample.workers, lately, rules.max_workers)
    return (kept, Reason.STABILISING) if kept > wanted else (wanted, why)
