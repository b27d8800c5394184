"""What the API's answers look like; arguments and results are passed on as they were sent, never written anew."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw, UnsetType

from api.problems import Problem
from taskplatform.autoscale.contract import DecisionRecord
from taskplatform.job import Attempt, DeadLetter, Job, NewJob, Priority, State
from taskplatform.task import Announced


class Links(msgspec.Struct, frozen=True, gc=False):
    """Where to go from a job."""

    self: str
    attempts: str
    cancel: str


class JobView(msgspec.Struct, frozen=True, gc=False):
    """A job as it stands; a done one has a `result` or an `error` or, cancelled or expired, perhaps neither."""

    id: UUID
    task: str
    task_version: int
    state: State
    done: bool
    pool: str
    priority: Priority
    attempt: int
    failures: int
    max_attempts: int
    created_at: datetime
    due_at: datetime | None
    expires_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    blocked_on: str | None
    reason: str | None
    tags: tuple[str, ...]
    args: Raw
    kwargs: Raw
    links: Links
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class JobPage(msgspec.Struct, frozen=True):
    """One page of jobs, the newest first; an empty token, and nothing else, says that it is the last."""

    jobs: list[JobView]
    next_page_token: str


class AttemptView(msgspec.Struct, frozen=True):
    """One run of a job; `end` is null while it runs."""

    number: int
    end: str | None
    worker: str
    started_at: datetime
    ended_at: datetime | None
    error: Raw | UnsetType = UNSET


class Attempts(msgspec.Struct, frozen=True):
    """Every run of a job in order."""

    attempts: list[AttemptView]


class DeadLetterView(msgspec.Struct, frozen=True):
    """Work that ended where an operator has to look; `headers` and `raw` (Base64) only when it is read alone."""

    id: int
    reason: str
    created_at: datetime
    queue: str
    task: str | None
    job_id: UUID | None
    tenant: str | None
    detail: str
    replayed_at: datetime | None
    headers: Raw | UnsetType = UNSET
    raw: bytes | UnsetType = UNSET


class DeadLetterPage(msgspec.Struct, frozen=True):
    """One page of dead letters, the newest first; an empty token, and nothing else, says that it is the last."""

    dead_letters: list[DeadLetterView]
    next_page_token: str


class TaskView(msgspec.Struct, frozen=True):
    """A task that workers have announced; `schema` describes its parameters as JSON Schema, null takes anything.

    New jobs are of this `version`; `live_versions` are those of the workers that take jobs now. Up to `bundle_jobs` of
    its jobs travel to a worker in one message.
    """

    name: str
    version: int
    live_versions: tuple[int, ...]
    pool: str
    priority: Priority
    max_attempts: int
    soft_limit_seconds: float | None
    hard_limit_seconds: float | None
    positional: tuple[str, ...]
    bundle_jobs: int
    schema: Raw


class Tasks(msgspec.Struct, frozen=True):
    """Every announced task by name."""

    tasks: list[TaskView]


class ScaleDecisionView(msgspec.Struct, frozen=True):
    """How many workers a pool had and should have; `facts` are the measurements and terms that it followed from."""

    pool: str
    at: datetime
    workers: int
    desired: int
    reason: str
    facts: dict[str, Any]


class ScaleDecisions(msgspec.Struct, frozen=True):
    """Decisions of the autoscaler."""

    decisions: list[ScaleDecisionView]


class BatchAnswer(msgspec.Struct, frozen=True, gc=False):
    """What became of one item of a batch: its `id` and `state`, or the `problem`."""

    status: int
    id: UUID | UnsetType = UNSET
    state: State | UnsetType = UNSET
    replayed: bool | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class BatchAnswers(msgspec.Struct, frozen=True):
    """What became of a batch, item by item in its order."""

    accepted: int
    rejected: int
    items: list[BatchAnswer]


class RejectedBatch(msgspec.Struct, frozen=True):
    """A problem whose `items` say what is wrong with each."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    accepted: int
    rejected: int
    items: list[BatchAnswer]


class KeyView(msgspec.Struct, frozen=True):
    """An API key without its secret."""

    id: str
    tenant: str
    name: str
    scopes: list[str]


class Health(msgspec.Struct, frozen=True):
    """How a process is: ok, stuck or starting."""

    status: str


class Readiness(msgspec.Struct, frozen=True):
    """Whether this process can do its work: `degraded` still accepts jobs, and they wait; no cache costs only time."""

    status: str
    store: str
    broker: str
    cache: str


def encode(view: msgspec.Struct) -> bytes:
    """Write an answer."""
    return _ENCODER.encode(view)


def job_view(job: Job) -> JobView:
    """Show a job."""
    args, kwargs, _ = _BODY.decode(job.body)
    return JobView(
        id=job.id,
        task=job.task,
        task_version=job.task_version,
        state=job.state,
        done=job.done,
        pool=job.pool,
        priority=job.priority,
        attempt=job.attempt,
        failures=job.failures,
        max_attempts=job.max_attempts,
        created_at=job.created_at,
        due_at=job.due_at,
        expires_at=job.expires_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        blocked_on=job.blocked_on,
        reason=job.reason,
        tags=job.tags,
        args=args,
        kwargs=kwargs,
        links=_links(job.id),
        result=_raw(job.result),
        error=_raw(job.error),
    )


def new_job_view(job: NewJob, *, state: State, blocked_on: str | None, created_at: datetime) -> JobView:
    """Show a job that was stored just now."""
    args, kwargs, _ = _BODY.decode(job.body)
    return JobView(
        id=job.id,
        task=job.task,
        task_version=job.task_version,
        state=state,
        done=False,
        pool=job.pool,
        priority=job.priority,
        attempt=0,
        failures=0,
        max_attempts=job.max_attempts,
        created_at=created_at,
        due_at=job.due_at,
        expires_at=job.expires_at,
        started_at=None,
        ended_at=None,
        blocked_on=blocked_on,
        reason=None,
        tags=job.tags,
        args=args,
        kwargs=kwargs,
        links=_links(job.id),
    )


def attempt_view(attempt: Attempt) -> AttemptView:
    """Show one run of a job."""
    return AttemptView(
        number=attempt.number,
        end=attempt.end,
        worker=attempt.worker,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        error=_raw(attempt.error),
    )


def letter_view(letter: DeadLetter, *, whole: bool = False) -> DeadLetterView:
    """Show a dead letter, its message too where `whole`."""
    return DeadLetterView(
        id=letter.id,
        reason=letter.reason,
        created_at=letter.created_at,
        queue=letter.queue,
        task=letter.task,
        job_id=letter.job_id,
        tenant=letter.tenant,
        detail=letter.detail,
        replayed_at=letter.replayed_at,
        headers=_raw(letter.headers) if whole else UNSET,
        raw=letter.raw if whole and letter.raw is not None else UNSET,
    )


def decision_view(record: DecisionRecord) -> ScaleDecisionView:
    """Show a decision of the autoscaler."""
    return ScaleDecisionView(
        pool=record.pool,
        at=record.at,
        workers=record.workers,
        desired=record.desired,
        reason=record.reason,
        facts=dict(record.facts),
    )


def task_view(task: Announced) -> TaskView:
    """Show what a task announced."""
    spec = task.spec
    return TaskView(
        name=spec.name,
        version=spec.version,
        live_versions=task.live,
        pool=spec.pool,
        priority=spec.priority,
        max_attempts=spec.max_attempts,
        soft_limit_seconds=spec.soft_limit_seconds,
        hard_limit_seconds=spec.hard_limit_seconds,
        positional=spec.positional,
        bundle_jobs=spec.bundle_jobs,
        schema=Raw(_ENCODER.encode(spec.schema)),
    )


_ENCODER = msgspec.json.Encoder()
_BODY = msgspec.json.Decoder(tuple[Raw, Raw, Raw])


def _links(job_id: UUID) -> Links:
    path = f"/v1/jobs/{job_id}"
    return Links(self=path, attempts=f"{path}/attempts", cancel=f"{path}:cancel")


def _raw(text: str | None) -> Raw | UnsetType:
    return UNSET if text is None else Raw(text.encode())
