"""How a job and its end are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from taskplatform.cli.output import FAILED, OK, say, show_fields, show_json
from taskplatform.job import State

if TYPE_CHECKING:
    from taskplatform.client import JobView


def show_ending(job: JobView, *, as_json: bool, traceback: bool = False) -> int:
    """Print the result on stdout, or on stderr why there is none; gives the exit status."""
    if as_json:
        show_json(job)
    elif job.state is State.SUCCEEDED:
        show_json(job.result)
    else:
        say(f"taskplatform: {why_no_result(job)}")
    if traceback and job.failure.traceback:
        say(job.failure.traceback)
    return OK if job.state is State.SUCCEEDED else FAILED


def why_no_result(job: JobView) -> str:
    """Say in one line why a job has no result."""
    if not job.done:
        return f"job {job.id} has not ended: it is {job.state}"
    if job.state is not State.DEAD:
        return f"job {job.id} is {job.state}"
    failure = job.failure
    message = " ".join(failure.message.split())
    return f"job {job.id} is dead ({job.reason}): {failure.type}: {message}"


def show_job(job: JobView) -> None:
    """Print a job for people."""
    show_fields(
        (
            ("id", job.id),
            ("task", job.task),
            ("state", job.state if job.blocked_on is None else f"{job.state} on {job.blocked_on}"),
            ("reason", job.reason),
            ("pool", job.pool),
            ("priority", job.priority),
            ("attempt", job.attempt),
            ("failures", f"{job.failures} of at most {job.max_attempts}"),
            ("created", job.created_at),
            ("due", job.due_at),
            ("started", job.started_at),
            ("ended", job.ended_at),
            ("tags", job.tags),
            ("args", msgspec.json.encode(job.args).decode()),
            ("kwargs", msgspec.json.encode(job.kwargs).decode()),
        )
    )
    if job.state is State.SUCCEEDED:
        show_fields((("result", msgspec.json.encode(job.result).decode()),))
    elif job.error is not None:
        show_fields((("error", f"{job.failure.type}: {job.failure.message}"),))
