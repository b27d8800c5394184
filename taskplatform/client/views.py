"""What the API's JSON says, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from taskplatform.job import TERMINAL, Priority, State


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemError:
    """One offending value: where it is (a JSON Pointer), and what is wrong with it."""

    pointer: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request was refused (RFC 9457); `code` is a stable word for programs."""

    status: int = 0
    title: str = ""
    detail: str = ""
    code: str = ""
    type: str = "about:blank"
    retryable: bool = False
    errors: list[ProblemError] = field(default_factory=list)

    @property
    def text(self) -> str:
        """One line for people."""
        line = self.detail or self.title or f"HTTP status {self.status}"
        where = [
            f"{error.pointer}: {error.detail}" for error in self.errors if error.detail and error.detail not in line
        ]
        return "; ".join([line, *where])


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How the last failed attempt of a job failed."""

    type: str = "unknown"
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as the API shows it; a done job has a `result` or an `error` or, cancelled or expired, neither."""

    id: UUID
    task: str
    state: State
    created_at: datetime
    pool: str = "default"
    priority: Priority = Priority.NORMAL
    attempt: int = 0
    failures: int = 0
    max_attempts: int = 1
    due_at: datetime | None = None
    expires_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    blocked_on: str | None = None
    reason: str | None = None
    tags: tuple[str, ...] = ()
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: Any = None

    @property
    def done(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL

    @property
    def failure(self) -> Failure:
        """What `error` says, whatever its shape."""
        return failure_of(self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One run of a job; `end` is None while it runs."""

    number: int
    worker: str
    started_at: datetime
    end: str | None = None
    ended_at: datetime | None = None
    error: Any = None

    @property
    def failure(self) -> Failure:
        """What `error` says, whatever its shape."""
        return failure_of(self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterView:
    """Work that ended where an operator has to look; `headers` and `raw` (Base64) are there when it is read alone."""

    id: int
    reason: str
    created_at: datetime
    queue: str = ""
    tenant: str | None = None
    job_id: UUID | None = None
    task: str | None = None
    detail: str = ""
    headers: Any = None
    raw: str | None = None
    replayed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task that the workers have announced.

    `positional` names the parameters that may be given by position, `schema` is the JSON Schema of all as one object.
    New jobs are of this `version`; `live_versions` are those of the workers that take jobs now. Up to `bundle_jobs` of
    its jobs travel to a worker in one message.
    """

    name: str
    version: int = 1
    live_versions: tuple[int, ...] = ()
    pool: str = "default"
    priority: Priority = Priority.NORMAL
    max_attempts: int = 5
    soft_limit_seconds: float | None = None
    hard_limit_seconds: float | None = None
    positional: tuple[str, ...] = ()
    bundle_jobs: int = 1
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A batch's item that is stored for good."""

    id: UUID
    state: State


def failure_of(error: Any) -> Failure:
    """Read an error of the API, which a task or another program may have shaped."""
    if not isinstance(error, dict):
        return Failure(message="" if error is None else str(error))
    return Failure(
        type=str(error.get("type") or "unknown"),
        message=str(error.get("message") or ""),
        traceback=str(error.get("traceback") or ""),
    )
