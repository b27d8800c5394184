"""Judges whether each job of the demo ended as it had to, from its state and its attempts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from examples.demo.plan import Ending, PlannedJob
from taskplatform import State
from taskplatform.job import TERMINAL, AttemptEnd, Reason

CHARGED = frozenset({AttemptEnd.FAILED, AttemptEnd.CRASHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSeen:
    """One attempt as the platform shows it; one that never started ran for no seconds."""

    end: AttemptEnd | None
    run_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    """A job as the platform shows it."""

    id: str
    state: State
    reason: str | None = None
    attempts: tuple[AttemptSeen, ...] = ()

    def ends(self, *ends: AttemptEnd) -> int:
        """Count the attempts that ended in one of these ways."""
        return sum(attempt.end in ends for attempt in self.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """What became of all jobs of one task; `mean_run_seconds` is None when none of their attempts ran."""

    task: str
    submitted: int
    succeeded: int
    retried: int
    dead: int
    mean_run_seconds: float | None


Pair = tuple[PlannedJob, JobSeen]


def objection(planned: PlannedJob, seen: JobSeen) -> str | None:
    """Say in a sentence what is wrong with the way a job ended; None when nothing is."""
    found = _found(planned.ending, seen)
    if found is None:
        return None
    return f"{planned.task.name} {seen.id}: {found} (expected: {planned.ending})"


def objections(pairs: Iterable[Pair]) -> list[str]:
    """Gather what is wrong with all jobs."""
    return [found for planned, seen in pairs if (found := objection(planned, seen)) is not None]


def by_task(pairs: Iterable[Pair]) -> list[TaskLine]:
    """Sum up the jobs of each task, in the order of their names."""
    ordered = sorted(pairs, key=lambda pair: pair[0].task.name)
    return [
        _line(task, [seen for _, seen in group]) for task, group in groupby(ordered, key=lambda pair: pair[0].task.name)
    ]


def _found(ending: Ending, seen: JobSeen) -> str | None:
    if seen.state not in TERMINAL:
        return f"is still {seen.state}"
    if ending is Ending.POISON:
        return _found_in_dead(Reason.POISON, seen)
    if ending is Ending.HOPELESS:
        return _found_in_dead(Reason.NOT_RETRYABLE, seen)
    if seen.state is not State.SUCCEEDED:
        return f"is {seen.state}, reason {seen.reason}"
    return _found_in_succeeded(ending, seen)


def _found_in_succeeded(ending: Ending, seen: JobSeen) -> str | None:
    failed, crashed, succeeded = map(seen.ends, (AttemptEnd.FAILED, AttemptEnd.CRASHED, AttemptEnd.SUCCEEDED))
    if crashed:
        return f"was charged with {crashed} crashes"
    if ending is Ending.AT_ONCE and failed:
        return f"failed {failed} times"
    # An attempt that was given back or lost raises the number too, and with it opens a shelf that counts attempts.
    if ending is Ending.AFTER_RETRIES and len(seen.attempts) < 2:
        return "needed one attempt only"
    if succeeded != 1:
        return f"succeeded {succeeded} times"
    return None


def _found_in_dead(reason: Reason, seen: JobSeen) -> str | None:
    if seen.state is not State.DEAD:
        return f"is {seen.state}"
    if seen.reason != reason:
        return f"is dead for another reason, {seen.reason}"
    if reason is Reason.NOT_RETRYABLE and seen.ends(*CHARGED) != 1:
        return f"was charged {seen.ends(*CHARGED)} times"
    if reason is Reason.POISON and not seen.ends(AttemptEnd.CRASHED):
        return "has no crash on record"
    return None


def _line(task: str, jobs: Sequence[JobSeen]) -> TaskLine:
    ran = [attempt.run_seconds for job in jobs for attempt in job.attempts if attempt.run_seconds > 0]
    return TaskLine(
        task=task,
        submitted=len(jobs),
        succeeded=sum(job.state is State.SUCCEEDED for job in jobs),
        retried=sum(len(job.attempts) - job.ends(AttemptEnd.RELEASED) > 1 for job in jobs),
        dead=sum(job.state is State.DEAD for job in jobs),
        mean_run_seconds=fmean(ran) if ran else None,
    )
