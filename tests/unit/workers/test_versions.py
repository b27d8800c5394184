"""Jobs that were accepted under a newer version of their task than a worker knows, and under an older one."""

from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest

from taskplatform.job import AttemptEnd, Envelope, Reason, State
from taskplatform.retry import Retry
from taskplatform.store.working import Claimed, Ended, Ending, GivenBack
from workers.endings import Traits
from workers.held import Limits
from workers.pipeline import Pipeline

NOW = 1_800_000_000.0


def pipeline_of(version: int) -> Pipeline:
    traits = {"shop": Traits(policy=Retry(), max_attempts=5, version=version)}
    limits = Limits(processes=2, window_jobs=16, window_seconds=0.1, crash_limit=3)
    return Pipeline("w", limits, traits, Random(7), clock=lambda: NOW)


def claim(pipeline: Pipeline, job_id: UUID, version: int, **known: Any) -> list[Ending]:
    """Give a worker a message that says nothing of a version, as old code writes it, and a row that does."""
    envelope = Envelope(id=job_id, task="shop", body="[]", tenant="t", pool="p")
    pipeline.receive(envelope, "tag")
    turn = pipeline.next_turn()
    assert turn is not None
    row: dict[str, Any] = {"attempt": 1, "failures": 0, "crashes": 0, "max_attempts": 5, "suspect": False}
    granted = Claimed(id=job_id, task_version=version, **(row | known))
    assert pipeline.answered(turn, [granted]).ack == []
    following = pipeline.next_turn()
    return [] if following is None else list(following.endings)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_worker_runs_jobs_of_its_version_and_of_older_ones(version: int) -> None:
    pipeline, job_id = pipeline_of(3), uuid4()

    assert claim(pipeline, job_id, version) == []

    assert [held.envelope.id for held in pipeline.take_chunk()] == [job_id]


def test_a_job_of_a_newer_version_is_given_back_for_a_while_and_says_why() -> None:
    pipeline, job_id = pipeline_of(1), uuid4()

    (ending,) = claim(pipeline, job_id, 2)

    assert isinstance(ending, GivenBack)
    assert (ending.id, ending.attempt) == (job_id, 1)
    assert 0.1 < ending.wait_seconds < 1
    assert "version 2 of 'shop'" in (ending.error or "")
    assert pipeline.backlog == pipeline.taken == 0


def test_it_is_given_back_for_longer_each_time_but_not_for_ever() -> None:
    waits = []
    for passes in range(19):
        (ending,) = claim(pipeline_of(1), uuid4(), 2, passes=passes)
        assert isinstance(ending, GivenBack)
        waits.append(ending.wait_seconds)

    (last,) = claim(pipeline_of(1), uuid4(), 2, passes=19)

    assert all(later > earlier * 0.9 for earlier, later in pairwise(waits[:11]))
    assert max(waits) <= 300 < 10 * 300 * 0.5 < sum(waits) < 3600
    assert isinstance(last, Ended)
    assert (last.state, last.end, last.reason) == (State.DEAD, AttemptEnd.RELEASED, Reason.UNKNOWN_VERSION)
    assert (last.failed, last.crashed, last.started, last.stopped) == (0, 0, NOW, NOW)


def test_other_attempts_of_the_job_do_not_count_as_giving_back() -> None:
    (ending,) = claim(pipeline_of(1), uuid4(), 2, attempt=41, failures=20)

    assert isinstance(ending, GivenBack)
    assert ending.wait_seconds < 1


def test_it_is_not_given_up_while_a_worker_lives_that_could_run_it() -> None:
    (ending,) = claim(pipeline_of(1), uuid4(), 2, passes=30, served=True)

    assert isinstance(ending, GivenBack)
    assert 100 < ending.wait_seconds <= 300
