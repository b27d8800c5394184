"""The SDK: hand in jobs and read what became of them, over HTTP; see docs/sdk.md."""

from taskplatform.client._base import Effort
from taskplatform.client._flows import JobFilters, LetterFilters
from taskplatform.client.async_ import AsyncClient, AsyncJobHandle, Batching
from taskplatform.client.calls import Call, call, named
from taskplatform.client.errors import (
    ApiError,
    BatchRejected,
    ClientError,
    JobCancelled,
    JobError,
    JobExpired,
    JobFailed,
    JobTimeout,
    NoAnswer,
    NotFound,
    Rejected,
    ServiceUnavailable,
    Unauthorized,
    UnexpectedAnswer,
)
from taskplatform.client.sync import Client, JobHandle, ThreadBatching
from taskplatform.client.views import AttemptView, DeadLetterView, Failure, JobView, Problem, ProblemError, TaskView

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncJobHandle",
    "AttemptView",
    "BatchRejected",
    "Batching",
    "Call",
    "Client",
    "ClientError",
    "DeadLetterView",
    "Effort",
    "Failure",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobFilters",
    "JobHandle",
    "JobTimeout",
    "JobView",
    "LetterFilters",
    "NoAnswer",
    "NotFound",
    "Problem",
    "ProblemError",
    "Rejected",
    "ServiceUnavailable",
    "TaskView",
    "ThreadBatching",
    "Unauthorized",
    "UnexpectedAnswer",
    "call",
    "named",
]
