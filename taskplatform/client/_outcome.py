"""What a caller gets: handles of what was accepted, a job's result in the type that its task promises, or an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from taskplatform.client import errors
from taskplatform.client.calls import Call, result_type
from taskplatform.client.views import Accepted, JobView, Problem
from taskplatform.job import State
from taskplatform.task import Task

R = TypeVar("R")
H = TypeVar("H")

Outcome = Accepted | Problem | errors.ClientError
"""What became of one job of a batch: its own answer, or the error of the request that it was in."""


def outcome_of(job: JobView, task: Task[..., R]) -> R:
    """Give a job's result. Raises JobFailed, JobCancelled, JobExpired, JobTimeout or UnexpectedAnswer."""
    match job.state:
        case State.SUCCEEDED:
            result: R = _as_promised(job, task)
            return result
        case State.DEAD:
            raise errors.JobFailed(job)
        case State.CANCELLED:
            raise errors.JobCancelled(job)
        case State.EXPIRED:
            raise errors.JobExpired(job)
        case _:
            raise errors.JobTimeout(job)


def answered(item: Outcome) -> Accepted | Problem:
    """Give a job's own answer. Raises ClientError when its request failed."""
    if isinstance(item, errors.ClientError):
        raise item
    return item


def accepted(item: Outcome) -> Accepted:
    """Give a job that is kept. Raises ApiError for one that was refused, ClientError when its request failed."""
    answer = answered(item)
    if isinstance(answer, Problem):
        raise errors.refusal(answer)
    return answer


def handles_of(
    calls: Sequence[Call[R]], outcome: Sequence[Accepted | Problem], handle: Callable[[UUID, Task[..., R]], H]
) -> list[H]:
    """Make a handle for each submission of a batch. Raises BatchRejected with the handles when some were refused."""
    handles: dict[int, H] = {}
    problems: dict[int, Problem] = {}
    for position, (call, item) in enumerate(zip(calls, outcome, strict=True)):
        if isinstance(item, Problem):
            problems[position] = item
        else:
            handles[position] = handle(item.id, call.task)
    if problems:
        raise errors.BatchRejected(handles, problems)
    return list(handles.values())


def _as_promised(job: JobView, task: Task[..., Any]) -> Any:
    promised = result_type(task.function)
    if promised is Any:
        return job.result
    try:
        return msgspec.convert(job.result, promised, str_keys=True)
    except msgspec.ValidationError as error:
        raise errors.UnexpectedAnswer(f"job {job.id}: the result is not what {task.name} promises: {error}") from None
    except TypeError:
        # A type that msgspec does not know cannot have come through JSON as itself.
        return job.result
