"""Turns what was measured into the sample of each pool, and picks whom a shrinking fleet can do without. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskplatform.autoscale.contract import LiveWorker, Measurement, Member, TaskHistory, TaskLoad
from taskplatform.autoscale.policy import Hold, Sample
from taskplatform.autoscale.rules import Plan

UNKNOWN_SERVICE_SECONDS = 1.0
"""How long a run is taken to last while none has been seen."""
_JUDGED_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A member of a fleet with what its lease says; one that takes no jobs yet has none.

    An `absent` one has had a lease and has none now. Once that has lasted it is `silent`: no part of the capacity.
    """

    member: Member
    live: LiveWorker | None
    absent: bool = False
    silent: bool = False

    @property
    def draining(self) -> bool:
        """Whether it takes no more jobs."""
        return self.member.draining or (self.live is not None and self.live.draining)

    @property
    def running(self) -> int:
        """How many jobs it holds."""
        return 0 if self.live is None else self.live.running


def standings(members: Sequence[Member], workers: Sequence[LiveWorker]) -> list[Standing]:
    """Find the lease of each member."""
    by_process = {(worker.host, worker.pid): worker for worker in workers}
    by_host = {worker.host: worker for worker in workers}
    return [
        Standing(
            member=member,
            live=by_host.get(member.host) if member.pid is None else by_process.get((member.host, member.pid)),
        )
        for member in members
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Absences:
    """Which members have had a lease, and since when (epoch seconds) those without one were seen to be absent."""

    heard: frozenset[str] = frozenset()
    since: Mapping[str, float] = field(default_factory=dict)

    def after_a_gap(self) -> Absences:
        """Give what is still known after a time in which nobody looked: whoever was absent may have been back."""
        return Absences(heard=self.heard)


def roll_call(
    fleet: Sequence[Standing], before: Absences, at: float, *, patience_seconds: float
) -> tuple[list[Standing], Absences]:
    """Mark who is absent at `at`, and who has been for `patience_seconds`; gives also what the next call has to know.

    The time counts from the first call that missed a member, not from the end of its lease: after an outage of the
    store every lease has run out, and a moment later none has. One that has never had a lease starts, however long
    that takes: what keeps it from its lease would keep those from theirs that took its place.
    """
    heard = {one.member.id for one in fleet if one.live is not None or one.member.id in before.heard}
    since = {
        one.member.id: before.since.get(one.member.id, at)
        for one in fleet
        if one.live is None and not one.draining and one.member.id in heard
    }
    called = [
        replace(one, absent=True, silent=at - since[one.member.id] >= patience_seconds)
        if one.member.id in since
        else one
        for one in fleet
    ]
    return called, Absences(heard=frozenset(heard), since=since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What else a sample is made of: what the broker holds, how the window was, and what is wrong."""

    messages: int = 0
    window_seconds: float = 15.0
    default_slots: int = 1
    holds: Collection[Hold] = ()


def sample_of(pool: str, measured: Measurement, fleet: Sequence[Standing], plan: Plan, around: Surroundings) -> Sample:
    """Make the sample of one pool."""
    loads = [load for load in measured.loads if load.pool == pool]
    histories = [history for history in measured.histories if history.pool == pool]
    service = _service_seconds(loads, histories)
    mean = _mean(loads, histories)
    ready = sum(load.ready for load in loads)
    # A plain Celery message has no row before it is claimed; a row's message may be on its way. One of both is enough.
    # Beside bundles, which are fewer messages than rows, such messages are seen late: when the bundles are gone.
    unseen = max(around.messages - ready, 0)
    active = [one for one in fleet if not one.draining and not one.silent]
    arrived = sum(load.arrived for load in loads)
    offered = sum(load.arrived * service[load.task] for load in loads)
    holds = {*around.holds, *((Hold.FAILING,) if _failing(histories, plan.failing_share) else ())}
    return Sample(
        at=measured.at,
        ready=ready + unseen,
        ready_work_seconds=sum(load.ready * service[load.task] for load in loads) + unseen * mean,
        running=sum(load.running for load in loads),
        oldest_age_seconds=max((load.oldest_age_seconds for load in loads), default=0.0),
        arrivals_per_second=arrived / around.window_seconds,
        service_seconds=offered / arrived if arrived else mean,
        slots=_slots(active, around.default_slots),
        workers=len(active),
        starting=sum(one.live is None and not one.absent for one in active),
        draining=sum(one.draining for one in fleet),
        silent=sum(one.silent for one in fleet),
        pinned=_pinned(active, histories, plan.grace_seconds),
        floor_workers=plan.floor_at(measured.at),
        budget_used_hours=measured.used_hours.get(pool, 0.0),
        holds=tuple(sorted(holds)),
    )


def size_with_silent(fleet: Sequence[Standing], desired: int, most: int) -> int:
    """Say how many members there have to be, for `desired` of them to be capacity.

    Those who take the place of silent ones are at most `most`, the pool's maximum: a fleet whose workers fall silent
    one after the other ends at twice its maximum. It is never less than are there and stay, for to ask for less would
    stop somebody.
    """
    silent = sum(one.silent for one in fleet)
    staying = sum(not one.draining for one in fleet)
    return max(desired + min(silent, most), staying)


def victims(fleet: Sequence[Standing], count: int, plan: Plan, *, longest_run_seconds: float) -> list[Member]:
    """Choose at most `count` workers to stop: idle ones first, then those whose oldest job is youngest.

    One that holds jobs is chosen only where they would end within the grace: `longest_run_seconds` is what a run of
    this pool may take. One that has hardly started is not chosen, nor one of which nobody knows what it does.
    """
    able = [
        one
        for one in fleet
        if not one.draining
        and not one.absent
        and one.member.age_seconds >= plan.least_life_seconds
        and (one.running == 0 or longest_run_seconds <= plan.grace_seconds)
    ]
    able.sort(key=lambda one: (one.running > 0, _sunk(one), one.running, one.member.age_seconds))
    return [one.member for one in able[:count]]


def longest_run(pool: str, measured: Measurement) -> float:
    """Give how long a run of this pool may take, as far as can be told: the longest that was seen, ended or not."""
    ended = (history.longest_seconds for history in measured.histories if history.pool == pool)
    running = (worker.longest_run_seconds for worker in measured.workers if worker.pool == pool)
    return max([*ended, *running], default=0.0)


def _sunk(one: Standing) -> float:
    return 0.0 if one.live is None else one.live.longest_run_seconds


def _service_seconds(loads: Sequence[TaskLoad], histories: Sequence[TaskHistory]) -> Mapping[str, float]:
    mean = _mean(loads, histories)
    by_task = {history.task: history for history in histories}
    return {load.task: _estimate([load], [by_task[load.task]]) if load.task in by_task else mean for load in loads}


def _mean(loads: Sequence[TaskLoad], histories: Sequence[TaskHistory]) -> float:
    return _estimate(loads, histories) if histories else max(UNKNOWN_SERVICE_SECONDS, _oldest(loads))


def _oldest(loads: Sequence[TaskLoad]) -> float:
    running = sum(load.running for load in loads)
    return sum(load.running_seconds for load in loads) / running if running else 0.0


def _estimate(loads: Sequence[TaskLoad], histories: Sequence[TaskHistory]) -> float:
    # Runs that go on count with their time until now: the estimate of a mean from values that are cut off (right
    # censoring); without it a pool of long jobs would look as if it had only short ones.
    ended = sum(history.ended for history in histories)
    spent = sum(history.seconds for history in histories) + sum(load.running_seconds for load in loads)
    return spent / max(ended, 1)


def _failing(histories: Sequence[TaskHistory], share: float) -> bool:
    ended = sum(history.ended for history in histories)
    return ended >= _JUDGED_ATTEMPTS and sum(history.failed for history in histories) > share * ended


def _slots(active: Sequence[Standing], default: int) -> int:
    known = [one.live.slots for one in active if one.live is not None]
    return max(round(sum(known) / len(known)), 1) if known else default


def _pinned(active: Sequence[Standing], histories: Sequence[TaskHistory], grace_seconds: float) -> int:
    seen = max((history.longest_seconds for history in histories), default=0.0)
    running = max((_sunk(one) for one in active), default=0.0)
    return sum(one.running > 0 for one in active) if max(seen, running) > grace_seconds else 0
