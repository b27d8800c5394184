"""What a worker counts, by the turn: for a single job nothing is done but to remember how long it ran."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from taskplatform.job import AttemptEnd, Envelope, State
from taskplatform.store.working import Claimed, Ended, Ending, GivenBack
from taskplatform.telemetry import Metrics
from workers.pipeline import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFigures:
    """One committed turn: how many jobs it was about, the endings that were recorded, and the attempts it started."""

    size: int
    recorded: Iterable[tuple[Envelope, Ending]]
    claimed: Iterable[tuple[Envelope, Claimed]]


class Figures:
    """The metrics of one worker."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ran: defaultdict[str, list[float]] = defaultdict(list)

    def show(self, pipeline: Pipeline, slots: int) -> None:
        """Show what is at hand, looked up when somebody asks."""
        self._metrics.worker_slots.set(slots)
        self._metrics.worker_jobs.labels(stage="waiting").set_function(lambda: pipeline.waiting)
        self._metrics.worker_jobs.labels(stage="taken").set_function(lambda: pipeline.taken)

    def ran(self, task: str, seconds: float) -> None:
        """Note how long an attempt ran."""
        self._ran[task].append(seconds)

    def turn(self, turn: TurnFigures) -> None:
        """Count a turn, and all that ran since the last."""
        metrics = self._metrics
        metrics.worker_turn_jobs.observe(turn.size)
        waits: defaultdict[str, list[float]] = defaultdict(list)
        for envelope, claim in turn.claimed:
            waits[envelope.priority].append(claim.waited_seconds)
        for priority, values in waits.items():
            metrics.job_wait_seconds.labels(priority).observe_all(values)
        metrics.jobs_claimed_total.inc(sum(map(len, waits.values())))
        self._count_endings(turn.recorded)
        ran, self._ran = self._ran, defaultdict(list)
        for task, values in ran.items():
            metrics.job_run_seconds.labels(metrics.task_label(task)).observe_all(values)

    def _count_endings(self, recorded: Iterable[tuple[Envelope, Ending]]) -> None:
        metrics = self._metrics
        ends: Counter[tuple[str, AttemptEnd]] = Counter()
        states: Counter[tuple[str, State]] = Counter()
        for envelope, ending in recorded:
            ends[envelope.task, AttemptEnd.RELEASED if isinstance(ending, GivenBack) else ending.end] += 1
            if isinstance(ending, Ended):
                states[envelope.task, ending.state] += 1
        for (task, end), count in ends.items():
            metrics.jobs_finished_total.labels(metrics.task_label(task), end.value).inc(count)
        for (task, state), count in states.items():
            metrics.jobs_ended_total.labels(metrics.task_label(task), state.value).inc(count)
