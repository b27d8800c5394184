"""What the SDK raises, as one tree.

TaskplatformError
└── ClientError
    ├── ApiError               the API refused a request; `problem` says why
    │   ├── Rejected           the submission is malformed, too big, or its key names another job
    │   ├── Unauthorized       no key, an unknown one, or one that lacks the scope
    │   ├── NotFound           no such job, or none that the key may see
    │   └── ServiceUnavailable the platform sheds load or a part is away, also after the last retry
    │       └── NoAnswer       the connection failed or timed out each time
    ├── UnexpectedAnswer       what came back is no answer of this API
    ├── BatchRejected          some submissions of a batch were refused, the others are accepted
    └── JobError               a job did not give its result; `job` is how it stands
        ├── JobFailed          it is dead; `remote_traceback` is the text from the worker
        ├── JobCancelled
        ├── JobExpired
        └── JobTimeout         it has not ended in time; it goes on
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskplatform import errors
from taskplatform.client.views import JobView, Problem


class ClientError(errors.TaskplatformError):
    """The root of what the SDK raises."""


class ApiError(ClientError):
    """The API refused a request; `retry_after_seconds` is how long it asks to wait, where it says so."""

    def __init__(self, problem: Problem, retry_after_seconds: float | None = None) -> None:
        super().__init__(problem.text)
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds


class Rejected(ApiError, errors.InvalidInput):
    """The submission is malformed, too big, or its key names another job; `pointers` says where."""

    def __init__(self, problem: Problem, retry_after_seconds: float | None = None) -> None:
        ApiError.__init__(self, problem, retry_after_seconds)
        self.detail = problem.text
        self.code = problem.code
        self.pointer = self.pointers[0] if self.pointers else ""

    @property
    def pointers(self) -> list[str]:
        """JSON Pointers (RFC 6901) to the offending values."""
        return [error.pointer for error in self.problem.errors]


class Unauthorized(ApiError, errors.Refused):
    """No key was sent, an unknown one, or one that lacks the scope."""


class NotFound(ApiError, errors.NotFound):
    """No such thing, or none that the key may see."""


class ServiceUnavailable(ApiError, errors.Unavailable):
    """The platform sheds load or a part of it is away; try again later."""


class NoAnswer(ServiceUnavailable):
    """The connection failed or timed out each time; what was asked may have happened."""


class UnexpectedAnswer(ClientError):
    """What came back is no answer of this API, or not of the type that the task promises."""


class BatchRejected(ClientError):
    """Some submissions of a batch were refused; both mappings go by the position in the batch."""

    def __init__(self, accepted: Mapping[int, Any], problems: Mapping[int, Problem]) -> None:
        first = min(problems)
        super().__init__(
            f"{len(problems)} of {len(problems) + len(accepted)} refused; [{first}]: {problems[first].text}"
        )
        self.accepted = accepted
        self.problems = problems


class JobError(ClientError):
    """A job did not give its result."""

    def __init__(self, job: JobView, text: str) -> None:
        super().__init__(f"job {job.id} ({job.task}) {text}")
        self.job = job


class JobFailed(JobError):
    """The job is dead."""

    def __init__(self, job: JobView) -> None:
        error = job.failure
        super().__init__(job, f"is dead ({job.reason}): {error.type}: {error.message}")
        self.error_type = error.type
        self.remote_traceback = error.traceback


class JobCancelled(JobError):
    """Somebody cancelled the job."""

    def __init__(self, job: JobView) -> None:
        super().__init__(job, "was cancelled")


class JobExpired(JobError):
    """The job's deadline passed before it started."""

    def __init__(self, job: JobView) -> None:
        super().__init__(job, "expired before it started")


class JobTimeout(JobError, TimeoutError):
    """The job has not ended in time; it goes on."""

    def __init__(self, job: JobView) -> None:
        super().__init__(job, f"has not ended in time, it is {job.state}")


def refusal(problem: Problem, retry_after_seconds: float | None = None) -> ApiError:
    """Make the error that fits a problem's status."""
    return _kind(problem.status)(problem, retry_after_seconds)


def _kind(status: int) -> type[ApiError]:
    match status:
        case 401 | 403:
            return Unauthorized
        case 404 | 410:
            return NotFound
        case 400 | 409 | 413 | 415 | 422:
            return Rejected
        case _ if status >= 500 or status in (408, 425, 429):
            return ServiceUnavailable
        case _:
            return ApiError
