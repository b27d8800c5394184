"""The job, its states, the table of transitions, and what an attempt can end in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

import msgspec


class State(StrEnum):
    """Where a job stands; each comment says who moves it out."""

    SCHEDULED = "scheduled"  # its time has not come: the dispatcher, or a cancel
    BLOCKED = "blocked"  # held by a gate, `blocked_on` says which: the dispatcher, or a cancel
    QUEUED = "queued"  # its message is published or in the outbox: a worker's claim, a cancel, its expiry
    RUNNING = "running"  # one attempt holds it: the worker that claimed it, a cancel, the rescuer
    RETRYING = "retrying"  # failed, waits for its backoff: the dispatcher, or a cancel
    SUCCEEDED = "succeeded"  # terminal
    DEAD = "dead"  # terminal, but an operator's replay may start a new series of attempts
    CANCELLED = "cancelled"  # terminal
    EXPIRED = "expired"  # terminal


class Actor(StrEnum):
    """Who may move a job."""

    DISPATCHER = "dispatcher"
    WORKER = "worker"
    CALLER = "caller"
    OPERATOR = "operator"


TERMINAL: Final = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED, State.EXPIRED})
LIVE: Final = frozenset(State) - TERMINAL
SETTLED: Final = TERMINAL - {State.DEAD}
"""States that nothing leaves: a dead job may be replayed."""

TRANSITIONS: Final = MappingProxyType(
    {
        (State.SCHEDULED, State.QUEUED): Actor.DISPATCHER,
        (State.SCHEDULED, State.BLOCKED): Actor.DISPATCHER,
        (State.SCHEDULED, State.CANCELLED): Actor.CALLER,
        (State.SCHEDULED, State.EXPIRED): Actor.DISPATCHER,
        (State.BLOCKED, State.QUEUED): Actor.DISPATCHER,
        (State.BLOCKED, State.CANCELLED): Actor.CALLER,
        (State.BLOCKED, State.EXPIRED): Actor.DISPATCHER,
        (State.QUEUED, State.RUNNING): Actor.WORKER,
        (State.QUEUED, State.CANCELLED): Actor.CALLER,
        (State.QUEUED, State.EXPIRED): Actor.DISPATCHER,
        (State.QUEUED, State.DEAD): Actor.DISPATCHER,
        (State.RUNNING, State.SUCCEEDED): Actor.WORKER,
        (State.RUNNING, State.RETRYING): Actor.WORKER,
        (State.RUNNING, State.DEAD): Actor.WORKER,
        (State.RUNNING, State.CANCELLED): Actor.CALLER,
        (State.RETRYING, State.QUEUED): Actor.DISPATCHER,
        (State.RETRYING, State.BLOCKED): Actor.DISPATCHER,
        (State.RETRYING, State.CANCELLED): Actor.CALLER,
        (State.RETRYING, State.EXPIRED): Actor.DISPATCHER,
        (State.DEAD, State.QUEUED): Actor.OPERATOR,
    }
)
"""Every arrow of the state machine and who follows it; the rescuer acts for a worker that is gone."""


class Priority(StrEnum):
    """Which queue of its pool a job waits in; a worker empties a higher one first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Reason(StrEnum):
    """Why a job or a message is dead."""

    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    NOT_RETRYABLE = "not_retryable"
    POISON = "poison"  # it killed its worker too often
    UNKNOWN_TASK = "unknown_task"
    UNKNOWN_VERSION = "unknown_version"  # workers with older versions of its task gave it back too often
    UNDECODABLE = "undecodable"
    UNSIGNED = "unsigned"
    FORGED = "forged"
    MALFORMED = "malformed"
    DELIVERY_LIMIT = "delivery_limit"


class Trouble(StrEnum):
    """What went wrong in a failed attempt."""

    ERROR = "error"  # the task raised
    HOPELESS = "hopeless"  # the task said that no retry will help
    RETRY_LATER = "retry_later"  # the task asked for a retry at a time of its choice
    HANDED_BACK = "handed_back"  # the task gave its job back, which nobody is charged for while its worker drains
    TIMEOUT = "timeout"  # a soft or hard time limit passed
    CRASH = "crash"  # the process died under it
    BAD_RESULT = "bad_result"  # the result cannot be stored


class AttemptEnd(StrEnum):
    """How one attempt ended, as its history shows it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CRASHED = "crashed"
    LOST = "lost"  # its worker vanished; nobody is charged
    RELEASED = "released"  # given back before it started; nobody is charged
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed.

    `error_types` are the qualified names of the exception's class and its bases, nearest first.
    """

    trouble: Trouble
    error_types: tuple[str, ...] = ()
    message: str = ""
    traceback: str = ""
    after_seconds: float | None = None


class Succeeded(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt returned; `result` is its JSON text."""

    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt did not return."""

    failure: Failure


Outcome = Succeeded | Failed


class NewJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A validated submission, ready to be stored; `body` is the JSON text of Celery's `[args, kwargs, embed]`."""

    id: UUID
    tenant: str
    task: str
    pool: str
    body: str
    priority: Priority = Priority.NORMAL
    state: State = State.QUEUED
    blocked_on: str | None = None
    due_at: datetime | None = None
    expires_at: datetime | None = None
    max_attempts: int = 5
    soft_limit_seconds: float | None = None
    hard_limit_seconds: float | None = None
    task_version: int = 1
    tags: tuple[str, ...] = ()
    trace: str | None = None
    key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it stands; `result` and `error` are JSON texts, and a done job has exactly one of them or neither."""

    id: UUID
    tenant: str
    task: str
    pool: str
    priority: Priority
    state: State
    body: str
    attempt: int
    failures: int
    max_attempts: int
    series: int
    created_at: datetime
    task_version: int = 1
    blocked_on: str | None = None
    due_at: datetime | None = None
    expires_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    result: str | None = None
    error: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the job is in a terminal state."""
        return self.state in TERMINAL

    @property
    def settled(self) -> bool:
        """Whether the job can never change any more."""
        return self.state in SETTLED

    @property
    def version(self) -> str:
        """A strong validator of this state: it changes with every transition."""
        return f"{self.series}-{self.attempt}-{self.state}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    """A job that was taken back from a vanished worker: its new state, and what its trace has to say of it."""

    id: UUID
    task: str
    tenant: str
    pool: str
    trace: str | None
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a job on record; `number` is the fencing number, unique and rising within the job."""

    job_id: UUID
    number: int
    end: AttemptEnd | None
    worker: str
    started_at: datetime
    ended_at: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Work that ended where an operator has to look: a dead job, or a message that never became one."""

    id: int
    reason: str
    created_at: datetime
    queue: str
    tenant: str | None = None
    job_id: UUID | None = None
    task: str | None = None
    detail: str = ""
    headers: str | None = None
    raw: bytes | None = None
    replayed_at: datetime | None = None


# One is made for every message: a struct takes a twentieth of a frozen dataclass's time.
class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What travels in a message: enough to run the job, signed.

    `series` is None where no row exists yet; only then `due_at` and `expires_at` mean anything. `task_version` is the
    version of the task that the job was accepted under: no worker with an older one runs it.
    """

    id: UUID
    task: str
    body: str
    tenant: str
    pool: str
    priority: Priority = Priority.NORMAL
    series: int | None = 0
    suspect: bool = False
    task_version: int = 1
    soft_limit_seconds: float | None = None
    hard_limit_seconds: float | None = None
    trace: str | None = None
    due_at: datetime | None = None
    expires_at: datetime | None = None
