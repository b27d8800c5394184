"""What those who watch ask of the store: how much of what there is and since when; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from taskplatform.job import State
from taskplatform.task import Announced


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Live jobs of one pool, priority, state and gate ("" for none).

    `oldest_seconds` is how long the one that has been there longest is there: queued, running, held back, or past the
    time at which it was due; below zero when none is due yet.
    """

    pool: str
    priority: str
    state: State
    gate: str
    jobs: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxState:
    """What waits in the outbox, and the age of its oldest row."""

    rows: int
    jobs: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The workers of a pool whose lease holds; `waiting` jobs are fetched and not claimed."""

    pool: str
    draining: bool
    workers: int
    slots: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """A standby that streams from the primary, and how far its replay is behind."""

    name: str
    lag_seconds: float
    lag_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """The sessions on this database by what they do, and the age of the oldest transaction."""

    by_state: Mapping[str, int]
    oldest_transaction_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """Jobs of a pool that somebody must have: queued ones a message, running ones a worker with a lease."""

    queued: int
    running_without_lease: int


class WatchStore(Protocol):
    """What the exporter's roles ask. Raises StoreUnavailable."""

    async def census(self) -> list[Crowd]:
        """Count all live jobs; this reads every one of them, and gives up after half a minute."""

    async def unreplayed_letters(self) -> dict[tuple[str, str], int]:
        """Count the dead letters that nobody has replayed, by queue and reason; this reads every one of them."""

    async def outbox_state(self) -> OutboxState:
        """Tell what waits in the outbox."""

    async def crews(self) -> list[Crew]:
        """Count workers by pool."""

    async def standbys(self) -> list[Standby]:
        """Tell how far the standbys are, none where the account may not see them."""

    async def sessions(self) -> Sessions:
        """Tell what the sessions on this database do."""

    async def in_outbox(self) -> dict[str, int]:
        """Count the queued jobs, by pool, of which an outbox row says that their message is still to be confirmed."""

    async def tasks(self) -> dict[str, Announced]:
        """Give every task that was ever announced, by name."""

    async def owed(self, age_seconds: float) -> dict[str, Owed]:
        """Count, by pool, jobs that were queued at least so long ago; cheap however many jobs wait elsewhere."""
