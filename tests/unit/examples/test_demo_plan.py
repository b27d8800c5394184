"""The plan of the demo: what it submits fits the tasks, and each ending is one that the task really takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from uuid import UUID

import jsonschema_rs
import pytest

from examples.chaos import ShelfStuckError
from examples.demo.plan import Ending, PlannedJob, whole_plan
from taskplatform import CurrentJob, Fail, RetryLater
from taskplatform.task import enter_job


@pytest.fixture
def plan(tmp_path: Path) -> tuple[PlannedJob, ...]:
    return whole_plan(str(tmp_path), Random(1))


@pytest.fixture
def first_attempt() -> Iterator[None]:
    enter_job(CurrentJob(id=UUID(int=1), attempt=1, tenant="test"))
    yield
    enter_job(None)


def test_the_plan_has_about_three_hundred_jobs(plan: tuple[PlannedJob, ...]) -> None:
    assert 280 <= len(plan) <= 320


def test_the_plan_has_every_ending_and_mostly_the_good_one(plan: tuple[PlannedJob, ...]) -> None:
    endings = Counter(job.ending for job in plan)

    assert set(endings) == set(Ending)
    assert endings.most_common(1)[0][0] is Ending.AT_ONCE


def test_every_planned_job_fits_the_schema_of_its_task(plan: tuple[PlannedJob, ...]) -> None:
    for job in plan:
        assert job.task.spec.schema is not None
        jsonschema_rs.validate(dict(job.task.spec.schema), job.arguments)


def test_good_jobs_of_the_plan_succeed_and_no_two_write_the_same_file(plan: tuple[PlannedJob, ...]) -> None:
    results = [job.task(**job.arguments) for job in plan if job.ending is Ending.AT_ONCE]

    files = [result["file"] for result in results if "file" in result]
    assert files
    assert len(files) == len(set(files))


def test_hopeless_jobs_of_the_plan_fail_for_good(plan: tuple[PlannedJob, ...]) -> None:
    for job in plan:
        if job.ending is Ending.HOPELESS:
            with pytest.raises(Fail):
                job.task(**job.arguments)


@pytest.mark.usefixtures("first_attempt")
def test_jobs_that_need_retries_fail_at_first_and_may_be_tried_again(plan: tuple[PlannedJob, ...]) -> None:
    for job in plan:
        if job.ending is Ending.AFTER_RETRIES:
            with pytest.raises((RetryLater, ShelfStuckError)):
                job.task(**job.arguments)


def test_two_plans_of_one_seed_are_the_same() -> None:
    assert whole_plan("/out", Random(3)) == whole_plan("/out", Random(3))
