"""What a worker's parent asks of the store, and tells it: claims, endings, leases; the docstrings are the guarantees.

The rules of `taskplatform.store.contract` hold here too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import msgspec

from taskplatform.job import AttemptEnd, Envelope, Reason, State
from taskplatform.task import TaskSpec

MOST_PASSES = 20
"""How often a job is given back because its version is too new, before it is dead where no worker could run it."""


# A worker makes these for every job: a struct takes a tenth of a frozen dataclass's time.
class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt ended its job: `state` is succeeded or dead. Times are epoch seconds."""

    id: UUID
    attempt: int
    state: State
    end: AttemptEnd
    started: float
    stopped: float
    reason: Reason | None = None
    result: str | None = None
    error: str | None = None
    failed: int = 0
    crashed: int = 0


class PutOff(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt failed and the job is to be tried again after `wait_seconds`. Times are epoch seconds."""

    id: UUID
    attempt: int
    wait_seconds: float
    end: AttemptEnd
    started: float
    stopped: float
    error: str | None = None
    failed: int = 0
    crashed: int = 0


class GivenBack(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed job goes back, to run again after `wait_seconds`; nobody is charged.

    `error` says why where its version is too new for the worker, which the job counts as one of its `passes`.
    """

    id: UUID
    attempt: int
    wait_seconds: float = 0.0
    error: str | None = None


Ending = Ended | PutOff | GivenBack


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """Jobs that a worker wants to start now.

    The same `worker` and `token` again give the same attempts. `adopt` are plain Celery messages without a row, each
    with the most attempts it may have; their ids are in `wanted` too, with series -1.
    """

    worker: str
    token: str
    wanted: Sequence[tuple[UUID, int]]
    adopt: Sequence[tuple[Envelope, int]] = ()


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that may run, and how long its job was queued; what is wanted and is not claimed must not run.

    `passes` tells how often the job was given back because its `task_version` was too new for a worker. Where
    the next time would make MOST_PASSES, `served` tells whether a worker of its pool that takes jobs could run it.
    """

    id: UUID
    attempt: int
    failures: int
    crashes: int
    max_attempts: int
    suspect: bool
    waited_seconds: float = 0.0
    task_version: int = 1
    passes: int = 0
    served: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The sign of life of one worker process; `waiting` jobs are fetched and not claimed.

    `versions` are those of the tasks that it runs, by their names; they stay as they were first.
    """

    worker: str
    pool: str
    host: str
    pid: int
    processes: int
    lease_seconds: float
    draining: bool = False
    running: int = 0
    waiting: int = 0
    versions: Mapping[str, int] = field(default_factory=dict)


class WorkStore(Protocol):
    """What a worker's parent asks; one call is one transaction."""

    def turn(self, endings: Sequence[Ending], claim: ClaimRequest | None) -> tuple[set[UUID], list[Claimed]]:
        """Record endings and start attempts in one commit.

        Gives the jobs whose ending was recorded, and the attempts that may run. An ending that is missing came from an
        attempt that had lost its job: its message is acknowledged all the same. May be called twice alike.
        """

    def renew(self, lease: Lease) -> None:
        """Keep, or take, the lease of this worker."""

    def end_lease(self, worker: str) -> None:
        """Give the lease up; whoever held jobs has given them back before."""

    def lost(self, running: Sequence[tuple[UUID, int]]) -> set[UUID]:
        """Tell which of these running attempts have lost their job, to a cancel or a rescue."""

    def save_checkpoints(self, saved: Mapping[tuple[UUID, int], str]) -> set[tuple[UUID, int]]:
        """Keep how far running attempts have come, each with its number, until their jobs end.

        Gives those that were kept; the others had lost their jobs. May be called twice alike.
        """

    def load_checkpoints(self, running: Collection[tuple[UUID, int]]) -> dict[tuple[UUID, int], str | None]:
        """Give what was kept last of the jobs that these attempts hold, None where nothing was."""

    def announce(self, specs: Collection[TaskSpec]) -> None:
        """Make this worker's tasks known."""
