"""What the platform asks of its store, split by who asks; the docstrings are the guarantees.

Every change of a job's state is one compare-and-set on its state and, for a running job, on its attempt. "Somebody else
was first" is a normal answer. Each method raises StoreUnavailable when nothing happened, and OutcomeUnknown when the
answer to a commit was cut off; the same call with the same ids is then safe.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from taskplatform.auth import ApiKey
from taskplatform.errors import TaskplatformError
from taskplatform.freshness import Position
from taskplatform.job import Attempt, DeadLetter, Envelope, Job, NewJob, Priority, Reason, Rescued, State
from taskplatform.overview import Glance
from taskplatform.task import Announced, TaskSpec

QUEUE_FULL = "queue_full"
"""The gate that holds jobs back while their queue holds as many messages as it can use soon."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The job is stored for good; `outbox_id` names the outbox row of its batch, None where no message is due."""

    id: UUID
    created_at: datetime
    outbox_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The key already names this job, handed in with the same body."""

    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTaken:
    """The key already names this job, handed in with another body; nothing was stored."""

    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedJob:
    """This job alone of its batch was refused, for a value or because of its cluster; nothing of it was stored."""

    id: UUID
    error: TaskplatformError


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Another job of the same whole was refused; nothing was stored."""

    id: UUID


Acceptance = Accepted | Replayed | KeyTaken | RefusedJob | LeftOut


class Release(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job whose message has to be published; `outbox_id` is the row that a confirm settles."""

    envelope: Envelope
    outbox_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a search wants; None does not filter. `before` is the last id of the page before."""

    tenant: str
    states: frozenset[State] = frozenset()
    task: str | None = None
    pool: str | None = None
    tag: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which dead letters a search wants, None is of every tenant; `before` is what `shards.continued` gives."""

    tenant: str | None
    reason: str | None = None
    task: str | None = None
    replayed: bool | None = None
    before: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuriedMessage:
    """A message on its way into the dead letters, with its raw bytes.

    `job_id` is set only where the message proved that it speaks for that job; `series` is the one it was sent for, None
    for a job without a row.
    """

    reason: Reason
    queue: str
    detail: str
    headers: str
    raw: bytes
    tenant: str | None = None
    job_id: UUID | None = None
    task: str | None = None
    series: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what to what."""

    tenant: str
    actor: str
    action: str
    target: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Jobs that were found; `since` is a position that all of it includes, None where that cannot be told."""

    jobs: Mapping[UUID, Job]
    since: Position | None


class IntakeStore(Protocol):
    """What the intake asks of a cluster."""

    async def accept(self, jobs: Sequence[NewJob], *, settled: Sequence[int] = ()) -> list[Acceptance]:
        """Store a batch in one transaction and say for each job, in order, what became of it.

        When it returns, every Accepted job is durable together with its idempotency key, and the queued ones share one
        outbox row. `settled` outbox rows are deleted on the way. A job is RefusedJob where Postgres refuses a value
        of it, or, with ShardMoved, where it is not at home in this cluster; the others take more transactions then.
        The same jobs again, with the same ids, are Accepted once more without being stored twice.
        Raises OutcomeUnknown, not StoreUnavailable, once a part of the batch is stored.
        """

    async def accept_whole(self, jobs: Sequence[NewJob]) -> list[Acceptance]:
        """Store a batch like `accept`, but all of it or nothing; no two of the jobs may have the same key.

        When a key is taken, its job is KeyTaken, every other one is LeftOut, and none was stored for a moment.
        Raises InvalidInput for a value that Postgres refuses.
        """

    async def settle_outbox(self, outbox_ids: Sequence[int]) -> None:
        """Forget outbox rows whose messages the broker has confirmed. May be called twice."""

    async def prove(self, seconds: float) -> None:
        """Return when an empty commit is as durable as any other, in about so many seconds or not at all."""


class TaskStore(Protocol):
    """What is asked about tasks."""

    async def tasks(self) -> dict[str, Announced]:
        """Give every task that was ever announced, by name."""

    async def announce(self, specs: Collection[TaskSpec]) -> None:
        """Make tasks known, each in its version; one that a living worker runs stays known beside it."""


class ReadStore(Protocol):
    """What readers ask. A job that was accepted is found from then on until retention drops it.

    Decide on nothing but the primary's answer. Who passes what it has `seen` may be answered by a replica with that.
    """

    @property
    def position(self) -> Position | None:
        """How far any answer of this process may have come from, None where nobody keeps count."""

    async def get(self, ids: Sequence[UUID]) -> dict[UUID, Job]:
        """Give the jobs that exist, whatever their tenant."""

    async def look(self, ids: Sequence[UUID], seen: Position) -> Look:
        """Give the jobs that exist, none as it stood before `seen`; that one does not exist the primary alone says.

        A job that never changes any more may come from anywhere, also while the primary is away.
        """

    async def attempts(self, job_id: UUID, seen: Position | None = None) -> list[Attempt]:
        """Give every run of a job in order, the running one last."""

    async def search(self, wanted: JobFilter, limit: int, seen: Position | None = None) -> list[Job]:
        """Give the newest jobs first, at most `limit`. Raises InvalidInput when the search takes too long."""

    async def done_among(self, ids: Sequence[UUID], seen: Position | None = None) -> set[UUID]:
        """Tell which of the jobs have ended."""

    async def letters(self, wanted: LetterFilter, limit: int, seen: Position | None = None) -> list[DeadLetter]:
        """Give the newest dead letters first, without their raw bytes."""

    async def letter(self, letter_id: int) -> DeadLetter | None:
        """Give one dead letter whole."""

    async def glance(self) -> Glance:
        """List the workers, and count the outbox and what has passed, of all tenants; cheap with any number of jobs."""


class OperateStore(Protocol):
    """What callers and operators change."""

    async def cancel(self, tenant: str, ids: Sequence[UUID]) -> set[UUID]:
        """Cancel live jobs; gives those that this call cancelled. A running one can record nothing any more."""

    async def replay(self, tenant: str, ids: Sequence[UUID]) -> list[Release]:
        """Start a new series of attempts for dead jobs; their dead letters are marked. Others are left alone."""

    async def mark_replayed(self, letter_id: int) -> bool:
        """Mark a raw dead letter as handed in again; False when somebody did so before."""

    async def audit(self, entry: AuditEntry) -> None:
        """Add to the record of who did what."""

    async def add_key(self, key: ApiKey) -> None:
        """Store a new API key."""

    async def key(self, key_id: str) -> ApiKey | None:
        """Give an API key by its id, revoked ones too."""

    async def keys(self) -> list[ApiKey]:
        """Give all API keys, newest first."""

    async def revoke_key(self, key_id: str) -> bool:
        """Revoke a key; False when it does not exist or was revoked before."""


Publish = Callable[[Sequence[Release]], Awaitable[Collection[UUID]]]
"""Publishes messages and gives the ids that the broker confirmed."""


class DispatchStore(Protocol):
    """What the dispatcher's roles ask; any number of dispatchers may ask at once and never get the same rows."""

    async def release_due(self, limit: int, full: Sequence[tuple[str, Priority]] = ()) -> list[Release]:
        """Queue jobs whose time has come and whose queue is none of the full ones, with one outbox row for all."""

    async def hold_due(self, full: Sequence[tuple[str, Priority]], limit: int) -> int:
        """Block jobs whose time has come and whose queue is one of the full ones; gives how many, at most `limit`."""

    async def release_blocked(self, pool: str, priority: Priority, limit: int) -> list[Release]:
        """Queue the oldest jobs that wait for room in their queue, with one outbox row for all."""

    async def blocked_queues(self, pools: Sequence[str]) -> list[tuple[str, Priority]]:
        """Tell for which queues jobs wait for room."""

    async def seconds_to_next_due(self) -> float | None:
        """Tell how long until the next job is due; None when none is."""

    async def relay(self, age_seconds: float, limit: int, publish: Publish) -> int:
        """Publish what outbox rows of that age still want, then delete the rows whose messages are all confirmed.

        A row of which messages are missing becomes young again, with those alone, so that it holds up no other. The
        rows are locked meanwhile. Gives the number of rows deleted; a crash in between only repeats messages.
        BrokerUnavailable, when `publish` raises it, is passed on after the rows became young.
        """

    async def stranded(self, pool: str, priority: Priority, age_seconds: float, limit: int) -> list[Release]:
        """Give jobs that have been queued that long, without changing them."""

    async def touch(self, ids: Sequence[UUID]) -> None:
        """Note that stranded jobs were published again."""

    async def expire(self, limit: int) -> int:
        """End jobs whose deadline passed before they started."""

    async def rescue(self, crash_limit: int) -> list[Rescued]:
        """Take back what vanished workers held, and forget those workers."""

    async def bury(self, messages: Sequence[BuriedMessage]) -> list[bool]:
        """Keep messages as dead letters, and make the queued jobs among them dead, in one transaction.

        Tells for each whether that is done: it is not while the cluster of its job, one of several, is away.

        A message whose job runs, has ended or is in another series is left out: it was a late copy. So a second call
        with the same messages adds nothing for jobs that have a row.
        """

    async def settle_outbox(self, outbox_ids: Sequence[int]) -> None:
        """Forget outbox rows whose messages the broker has confirmed. May be called twice."""

    async def wait_for_due(self, timeout_seconds: float) -> None:
        """Return when the store says that something may be due, or after the timeout."""
