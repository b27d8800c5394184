"""Submissions become jobs: arguments as sent, options over the task's own, fingerprints that mind the meaning alone."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform import submission
from taskplatform.errors import InvalidInput, SettingsError
from taskplatform.ids import Locator, new_job_id
from taskplatform.job import NewJob, Priority, State
from taskplatform.payload import decode_body
from taskplatform.task import TaskSpec, task

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CALLER = submission.Caller(tenant="acme", pools=("default", "bulk"))


@task(name="resize", soft_limit_seconds=5, hard_limit_seconds=10, priority=Priority.HIGH)
def resize(path: str, width: int, *, sharp: bool = False) -> None:
    """Take a path and a width."""


def made(body: dict[str, Any], *, spec: TaskSpec = resize.spec, key: str | None = None) -> NewJob:
    request = submission.read(json.dumps(body).encode())
    job_id = new_job_id(Locator(region=0, shard=0))
    return submission.new_job(request, submission.Checker(spec), CALLER, now=NOW, job_id=job_id, key=key)


def refusal(body: dict[str, Any]) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        made(body)
    return caught.value


def test_the_tasks_own_options_hold_where_none_are_chosen() -> None:
    job = made({"task": "resize", "args": ["a", 1], "pool": None})

    assert (job.pool, job.priority, job.max_attempts) == ("default", Priority.HIGH, 5)
    assert (job.soft_limit_seconds, job.hard_limit_seconds, job.state) == (5, 10, State.QUEUED)


def test_chosen_options_win() -> None:
    job = made({"task": "resize", "args": ["a", 1], "pool": "bulk", "priority": "low", "hard_limit_seconds": 7})

    assert (job.pool, job.priority, job.hard_limit_seconds) == ("bulk", Priority.LOW, 7)


def test_a_time_to_come_makes_a_scheduled_job() -> None:
    job = made({"task": "resize", "args": ["a", 1], "run_at": "2026-01-02T05:04:05+01:00", "deadline_seconds": 9000})

    assert (job.state, job.due_at) == (State.SCHEDULED, NOW + timedelta(hours=1))
    assert job.expires_at == NOW + timedelta(seconds=9000)


def test_a_time_gone_by_means_now() -> None:
    job = made({"task": "resize", "args": ["a", 1], "run_at": "2020-01-01T00:00:00Z"})

    assert (job.state, job.due_at) == (State.QUEUED, None)


def test_a_limit_above_the_tasks_other_limit_is_refused() -> None:
    assert refusal({"task": "resize", "args": ["a", 1], "soft_limit_seconds": 60}).pointer == "/soft_limit_seconds"


def test_every_wrong_argument_is_pointed_at() -> None:
    error = refusal({"task": "resize", "args": [1, "x"], "kwargs": {"sharp": "yes", "no": 1}})

    assert isinstance(error, submission.InvalidArguments)
    assert {pointer for pointer, _ in error.found} >= {"/args/0", "/args/1", "/kwargs/sharp"}


def test_a_task_without_a_schema_takes_anything() -> None:
    spec = TaskSpec(name="any", takes_more_positional=True)

    assert decode_body(made({"task": "any", "args": [1, "x"], "kwargs": {"y": None}}, spec=spec).body) == (
        [1, "x"],
        {"y": None},
    )


def test_a_schema_that_is_none_is_said() -> None:
    with pytest.raises(SettingsError, match="resize"):
        submission.Checker(TaskSpec(name="resize", schema={"type": "nonsense"}))


def test_a_fingerprint_minds_what_is_asked_for_and_not_how() -> None:
    plain = made({"task": "resize", "kwargs": {"path": "a", "width": 1}}, key="k")
    turned = made({"kwargs": {"width": 1, "path": "a"}, "task": "resize", "pool": None, "args": []}, key="k")
    other = made({"task": "resize", "kwargs": {"path": "a", "width": 1}, "max_attempts": 3}, key="k")

    assert plain.fingerprint == turned.fingerprint != other.fingerprint


@given(
    args=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)),
    kwargs=st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=9), st.booleans()),
)
def test_arguments_reach_the_body_as_they_were_sent(args: list[Any], kwargs: dict[str, Any]) -> None:
    spec = TaskSpec(name="any", takes_more_positional=True)

    job = made({"task": "any", "args": args, "kwargs": kwargs}, spec=spec)

    assert job.body.startswith(f"[{json.dumps(args)},{json.dumps(kwargs)},")
