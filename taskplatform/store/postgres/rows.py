"""Reads rows back into values; the statements select the columns in this order."""

from __future__ import annotations

from typing import Any

from taskplatform.auth import ApiKey, Scope
from taskplatform.job import Attempt, AttemptEnd, DeadLetter, Envelope, Job, Priority, State
from taskplatform.store.contract import Release

Row = tuple[Any, ...]

JOB_COLUMNS = (
    *("id", "tenant", "task", "pool", "priority", "state", "body", "attempt", "failures", "max_attempts", "series"),
    *(
        "created_at",
        "task_version",
        "blocked_on",
        "due_at",
        "expires_at",
        "started_at",
        "ended_at",
        "reason",
        "result",
        "error",
        "tags",
    ),
)
LETTER_COLUMNS = (
    *("id", "reason", "created_at", "queue", "tenant", "job_id", "task", "detail", "headers", "replayed_at"),
    "raw",
)
_RELEASE_COLUMNS = (
    *("id", "tenant", "task", "pool", "priority", "series", "suspect", "soft_limit_seconds", "hard_limit_seconds"),
    *("task_version", "trace", "body"),
)
_KEY_COLUMNS = ("id", "tenant", "name", "secret_sha256", "scopes", "created_at", "expires_at", "revoked_at")
_ATTEMPT_COLUMNS = ("job_id", "number", "end", "worker", "started_at", "ended_at", "error")


def job(row: Row) -> Job:
    """Read a job."""
    values = dict(zip(JOB_COLUMNS, row, strict=True))
    values["priority"] = Priority(values["priority"])
    values["state"] = State(values["state"])
    values["tags"] = tuple(values["tags"])
    return Job(**values)


def attempt(row: Row) -> Attempt:
    """Read an attempt."""
    values = dict(zip(_ATTEMPT_COLUMNS, row, strict=True))
    values["end"] = AttemptEnd(values["end"]) if values["end"] else None
    return Attempt(**values)


def release(row: Row) -> Release:
    """Read a job that has to be published, and the outbox row behind it."""
    *columns, outbox_id = row
    values = dict(zip(_RELEASE_COLUMNS, columns, strict=True))
    values["priority"] = Priority(values["priority"])
    return Release(envelope=Envelope(**values), outbox_id=outbox_id)


def letter(row: Row) -> DeadLetter:
    """Read a dead letter, with its raw bytes where they were asked for."""
    return DeadLetter(**dict(zip(LETTER_COLUMNS, row, strict=False)))


def key(row: Row) -> ApiKey:
    """Read an API key."""
    values = dict(zip(_KEY_COLUMNS, row, strict=True))
    values["scopes"] = frozenset(Scope(scope) for scope in values["scopes"])
    return ApiKey(**values)
