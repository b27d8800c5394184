"""What `watch` tells about a job."""

from typing import Any

import msgspec

from taskplatform.cli.ending import why_no_result
from taskplatform.cli.jobs import timeline
from taskplatform.client import AttemptView, JobView
from tests.unit.client.scripts import JOB_ID, a_job


def _job(state: str, **members: Any) -> JobView:
    return msgspec.convert(a_job(state, **members), JobView)


def _attempt(number: int, **members: Any) -> AttemptView:
    started = {"number": number, "worker": "w1", "started_at": f"2026-11-20T10:00:0{number}Z"}
    return msgspec.convert({**started, **members}, AttemptView)


def test_a_timeline_tells_every_attempt_and_its_end() -> None:
    error = {"type": "builtins.OSError", "message": "no disk"}
    attempts = [_attempt(1, end="failed", ended_at="2026-11-20T10:00:02Z", error=error), _attempt(2)]

    assert timeline(_job("running"), attempts) == [
        "10:00:00  accepted   demo.add",
        "10:00:01  attempt 1  on w1",
        "10:00:02  attempt 1  failed: builtins.OSError: no disk",
        "10:00:02  attempt 2  on w1",
    ]


def test_a_timeline_tells_when_a_waiting_job_is_due() -> None:
    due = _job("retrying", due_at="2026-11-20T10:05:00Z")

    assert timeline(due, [])[-1] == "10:05:00  due        retrying"


def test_a_timeline_tells_what_a_held_job_waits_for() -> None:
    assert timeline(_job("blocked", blocked_on="queue_full"), [])[-1] == "         blocked    on queue_full"


def test_a_timeline_ends_with_the_end() -> None:
    assert timeline(_job("dead", ended_at="2026-11-20T10:00:09Z"), [])[-1] == "10:00:09  dead"


def test_a_job_without_a_result_is_explained_in_one_line() -> None:
    dead = _job("dead", reason="not_retryable", error={"type": "ValueError", "message": "two\nlines"})

    assert why_no_result(dead) == f"job {JOB_ID} is dead (not_retryable): ValueError: two lines"
    assert why_no_result(_job("cancelled")) == f"job {JOB_ID} is cancelled"
    assert why_no_result(_job("running")) == f"job {JOB_ID} has not ended: it is running"
