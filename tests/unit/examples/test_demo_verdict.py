"""The verdict of the demo: which endings it accepts, what it objects to, and how it sums up."""

from __future__ import annotations

import pytest

from examples import chaos, documents
from examples.demo.plan import Ending, PlannedJob
from examples.demo.verdict import AttemptSeen, JobSeen, by_task, objection, objections
from taskplatform import State
from taskplatform.job import AttemptEnd, Reason

OK, FAILED, CRASHED = AttemptEnd.SUCCEEDED, AttemptEnd.FAILED, AttemptEnd.CRASHED
LOST, RELEASED = AttemptEnd.LOST, AttemptEnd.RELEASED
SUCCEEDED, DEAD = State.SUCCEEDED, State.DEAD


def planned(ending: Ending) -> PlannedJob:
    return PlannedJob(task=documents.terms, arguments={"title": "for"}, ending=ending)


def seen(state: State, *ends: AttemptEnd | None, reason: str | None = None) -> JobSeen:
    return JobSeen(id="j1", state=state, reason=reason, attempts=tuple(AttemptSeen(end=end) for end in ends))


@pytest.mark.parametrize(
    ("ending", "job"),
    [
        (Ending.AT_ONCE, seen(SUCCEEDED, OK)),
        (Ending.AT_ONCE, seen(SUCCEEDED, RELEASED, OK)),
        (Ending.AT_ONCE, seen(SUCCEEDED, LOST, OK)),
        (Ending.AFTER_RETRIES, seen(SUCCEEDED, FAILED, FAILED, OK)),
        (Ending.AFTER_RETRIES, seen(SUCCEEDED, LOST, OK)),
        (Ending.HOPELESS, seen(DEAD, FAILED, reason=Reason.NOT_RETRYABLE)),
        (Ending.POISON, seen(DEAD, LOST, CRASHED, CRASHED, CRASHED, reason=Reason.POISON)),
    ],
)
def test_a_job_that_ended_as_planned_meets_no_objection(ending: Ending, job: JobSeen) -> None:
    assert objection(planned(ending), job) is None


@pytest.mark.parametrize(
    ("ending", "job", "words"),
    [
        (Ending.AT_ONCE, seen(State.RETRYING, FAILED), "is still retrying"),
        (Ending.AT_ONCE, seen(SUCCEEDED, CRASHED, OK), "was charged with 1 crashes"),
        (Ending.AT_ONCE, seen(SUCCEEDED, FAILED, OK), "failed 1 times"),
        (Ending.AT_ONCE, seen(SUCCEEDED, OK, OK), "succeeded 2 times"),
        (Ending.AT_ONCE, seen(SUCCEEDED), "succeeded 0 times"),
        (Ending.AT_ONCE, seen(DEAD, CRASHED, reason=Reason.POISON), "is dead, reason poison"),
        (Ending.AFTER_RETRIES, seen(SUCCEEDED, OK), "needed one attempt only"),
        (Ending.AFTER_RETRIES, seen(SUCCEEDED, FAILED, CRASHED, OK), "was charged with 1 crashes"),
        (Ending.HOPELESS, seen(SUCCEEDED, OK), "is succeeded"),
        (Ending.HOPELESS, seen(DEAD, FAILED, reason=Reason.ATTEMPTS_EXHAUSTED), "dead for another reason"),
        (Ending.HOPELESS, seen(DEAD, FAILED, FAILED, reason=Reason.NOT_RETRYABLE), "was charged 2 times"),
        (Ending.POISON, seen(DEAD, FAILED, reason=Reason.NOT_RETRYABLE), "dead for another reason"),
        (Ending.POISON, seen(DEAD, LOST, reason=Reason.POISON), "has no crash on record"),
    ],
)
def test_a_job_that_ended_otherwise_meets_an_objection_that_names_it(ending: Ending, job: JobSeen, words: str) -> None:
    said = objection(planned(ending), job)

    assert said is not None
    assert words in said
    assert said.startswith("documents.terms j1")


def test_objections_are_those_of_the_bad_jobs_alone() -> None:
    good, bad = seen(SUCCEEDED, OK), seen(State.EXPIRED)

    assert len(objections([(planned(Ending.AT_ONCE), good), (planned(Ending.AT_ONCE), bad)])) == 1


def test_a_task_is_summed_up_over_its_jobs() -> None:
    calm = JobSeen(id="a", state=SUCCEEDED, attempts=(AttemptSeen(end=OK, run_seconds=0.2),))
    again = JobSeen(
        id="b",
        state=SUCCEEDED,
        attempts=(AttemptSeen(end=FAILED, run_seconds=0.3), AttemptSeen(end=OK, run_seconds=0.4)),
    )
    given_back = seen(SUCCEEDED, RELEASED, OK)
    killer = PlannedJob(task=chaos.kill_worker, arguments={}, ending=Ending.POISON)
    dead = seen(DEAD, CRASHED, CRASHED, CRASHED, reason=Reason.POISON)
    terms = planned(Ending.AT_ONCE)

    killers, others = by_task([(terms, calm), (killer, dead), (terms, again), (terms, given_back)])

    assert (killers.task, killers.submitted, killers.dead, killers.mean_run_seconds) == (
        "chaos.kill_worker",
        1,
        1,
        None,
    )
    assert (others.submitted, others.succeeded, others.retried, others.dead) == (3, 3, 1, 0)
    assert others.mean_run_seconds == pytest.approx(0.3)
