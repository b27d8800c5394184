"""The values of a worker's pipeline: the jobs it holds, its limits, and what it tells store and broker."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from uuid import UUID

import msgspec

from taskplatform.job import Envelope, Priority
from taskplatform.store.working import ClaimRequest, Ending
from workers.endings import Traits
from workers.pace import CHUNK_JOBS

Tag = int | str


class Stage(Enum):
    """Where a held job stands."""

    WAITING = auto()  # its message is here, nobody asked for it yet
    CLAIMING = auto()  # the claim is on its way
    READY = auto()  # claimed, not started
    RUNNING = auto()  # handed to a child
    ENDING = auto()  # its ending waits to be recorded, or is on its way


class Held(msgspec.Struct, kw_only=True, eq=False):
    """One job that this worker holds a message or a claim of; `tags` are the deliveries that end with it.

    `cluster` is the number of the Postgres cluster that keeps its row.
    """

    envelope: Envelope
    traits: Traits
    tags: list[Tag]
    cluster: int = 0
    stage: Stage = Stage.WAITING
    expected_seconds: float = 0.0
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    max_attempts: int = 1
    suspect: bool = False
    lost: bool = False

    @property
    def hard_limit_seconds(self) -> float | None:
        """How long it may run before its child is killed."""
        own = self.envelope.hard_limit_seconds
        return self.traits.hard_limit_seconds if own is None else own

    @property
    def soft_limit_seconds(self) -> float | None:
        """How long it may run before it is told to stop."""
        own = self.envelope.soft_limit_seconds
        return self.traits.soft_limit_seconds if own is None else own


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a worker takes on; `processes` jobs run at once, and `chunk_jobs` at most are handed over together."""

    processes: int
    window_jobs: int
    window_seconds: float
    crash_limit: int
    chunk_jobs: int = CHUNK_JOBS

    def fitting(self, seconds: float | None) -> int:
        """How many jobs of that length are worth having at hand; None where no length is known yet."""
        if seconds is None:
            return self.processes
        fitting = int(self.window_seconds * self.processes / max(seconds, 1e-6))
        return max(self.processes, min(fitting, self.window_jobs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One exchange with one Postgres cluster: endings to record and jobs to claim, in one commit."""

    endings: tuple[Ending, ...]
    claim: ClaimRequest | None
    cluster: int = 0

    @property
    def size(self) -> int:
        """How many jobs it concerns."""
        return len(self.endings) + (len(self.claim.wanted) if self.claim else 0)

    @property
    def only(self) -> UUID | None:
        """The job of a turn that concerns a single one."""
        if self.size != 1:
            return None
        return self.claim.wanted[0][0] if self.claim else self.endings[0].id


class ClusterPart:
    """What is to be told and asked one Postgres cluster; nothing is asked one that is `away`.

    `held` counts the jobs that are held of it. `strangers` wait to be tried again: the cluster says they are at home
    elsewhere, and the map that they are not.
    """

    __slots__ = ("away", "endings", "held", "refused", "strangers", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Priority, deque[Held]] = {priority: deque() for priority in Priority}
        self.endings: list[Ending] = []
        self.refused: deque[Turn] = deque()
        self.strangers: deque[Held] = deque()
        self.away = False
        self.held = 0

    @property
    def waiting_jobs(self) -> int:
        """How many jobs wait to be claimed."""
        return sum(map(len, (*self.waiting.values(), self.strangers)))

    def take_waiting(self) -> list[Held]:
        """Give what waits to be claimed, which waits here no longer."""
        taken: list[Held] = []
        for queue in (*self.waiting.values(), self.strangers):
            taken += queue
            queue.clear()
        return taken

    @property
    def suspect_is_next(self) -> bool:
        """Whether the job to claim next may have killed a whole worker."""
        first = next((queue[0] for queue in self.waiting.values() if queue), None)
        return first is not None and first.envelope.suspect


@dataclass(slots=True, kw_only=True)
class Settlement:
    """What to tell the broker."""

    ack: list[Tag] = field(default_factory=list)
    reject: list[Tag] = field(default_factory=list)
