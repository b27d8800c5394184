"""What a caller gets from a job that has ended."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from taskplatform import task
from taskplatform.client import JobCancelled, JobExpired, JobFailed, JobTimeout, JobView, UnexpectedAnswer, named
from taskplatform.client._outcome import outcome_of
from tests.unit.client.scripts import a_job


@dataclass(frozen=True, kw_only=True)
class Report:
    at: datetime
    counts: dict[int, str]


@task(name="demo.report")
def report() -> Report:
    raise NotImplementedError


def _job(state: str, **members: Any) -> JobView:
    return msgspec.convert(a_job(state, **members), JobView)


def test_a_result_has_the_type_that_the_task_promises() -> None:
    job = _job("succeeded", result={"at": "2026-11-20T10:00:00Z", "counts": {"1": "one"}})

    assert outcome_of(job, report) == Report(at=datetime(2026, 11, 20, 10, tzinfo=UTC), counts={1: "one"})


def test_a_result_of_a_task_known_by_name_is_plain_json() -> None:
    assert outcome_of(_job("succeeded", result={"counts": [1]}), named("demo.report")) == {"counts": [1]}


def test_a_result_that_breaks_the_promise_is_refused() -> None:
    with pytest.raises(UnexpectedAnswer, match=r"not what demo\.report promises"):
        outcome_of(_job("succeeded", result=7), report)


def test_a_dead_job_brings_the_traceback_from_the_worker() -> None:
    error = {"type": "builtins.ValueError", "message": "no such photo", "traceback": "Traceback …"}

    with pytest.raises(JobFailed, match=r"is dead \(not_retryable\): builtins\.ValueError: no such photo") as caught:
        outcome_of(_job("dead", reason="not_retryable", error=error), report)

    assert caught.value.remote_traceback == "Traceback …"
    assert caught.value.error_type == "builtins.ValueError"


def test_an_error_of_any_other_shape_is_shown_as_it_is() -> None:
    with pytest.raises(JobFailed, match="something else"):
        outcome_of(_job("dead", error="something else"), report)


@pytest.mark.parametrize(
    ("state", "kind"), [("cancelled", JobCancelled), ("expired", JobExpired), ("running", JobTimeout)]
)
def test_a_job_without_a_result_raises_why(state: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        outcome_of(_job(state), report)


def test_a_job_that_takes_too_long_is_a_timeout_error_too() -> None:
    with pytest.raises(TimeoutError):
        outcome_of(_job("running"), report)
