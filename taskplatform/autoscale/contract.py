"""What the autoscaler asks of its store and of whoever starts and stops workers; the docstrings are the guarantees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from taskplatform.autoscale.policy import Decision, Sample

LEASE = "autoscaler"
"""The lease whose holder decides and acts."""
KILL_AFTER_SECONDS = 10.0
"""How much longer than its grace a draining worker has: it records and gives back what it could not finish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLoad:
    """The live jobs of one task in one pool. Times in seconds; `running_seconds` is the sum of the ages of the runs."""

    pool: str
    task: str
    ready: int = 0
    running: int = 0
    oldest_age_seconds: float = 0.0
    running_seconds: float = 0.0
    arrived: int = 0
    """How many became ready within the window that was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHistory:
    """The recent attempts of one task in one pool that have ended."""

    pool: str
    task: str
    ended: int
    failed: int
    seconds: float
    longest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWorker:
    """A worker with a living lease, and what it runs. Times in seconds."""

    name: str
    pool: str
    host: str
    pid: int
    slots: int
    draining: bool
    running: int
    longest_run_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What the store knows of all pools at one moment, by its own clock (epoch seconds).

    `used_hours` are the worker-hours of this calendar month (UTC) by pool.
    """

    at: float
    loads: Sequence[TaskLoad]
    histories: Sequence[TaskHistory]
    workers: Sequence[LiveWorker]
    used_hours: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """A decision as it is kept, with everything that it followed from."""

    at: datetime
    pool: str
    workers: int
    desired: int
    reason: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A decision on its way into the store; `worker_seconds` were used since the one before."""

    pool: str
    sample: Sample
    decision: Decision
    worker_seconds: float


class ScaleStore(Protocol):
    """What the autoscaler asks. Raises StoreUnavailable, or OutcomeUnknown, like every store."""

    async def hold_lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take or keep a lease; False while somebody else holds it. Of any number of holders one has it at a time."""

    async def keep_lease(self, name: str, holder: str, seconds: float) -> bool:
        """Prolong a lease that `holder` has had without a gap until now; False once it has lapsed, taken or not."""

    async def yield_lease(self, name: str, holder: str) -> None:
        """Give a lease up, if this holder has it."""

    async def measure(self, window_seconds: float) -> Measurement:
        """Measure all pools; `arrived` counts the last `window_seconds`.

        Of very many ready jobs only the oldest are counted: then there are at least so many.
        """

    async def live_workers(self) -> list[LiveWorker]:
        """Give the workers with a living lease, without what they run."""

    async def record_decisions(self, holder: str, choices: Sequence[Choice]) -> bool:
        """Keep decisions, if `holder` has the lease of the autoscaler, in one transaction; False when it has not."""

    async def decisions(self, pool: str, limit: int, *, since: datetime | None = None) -> list[DecisionRecord]:
        """Give the newest decisions about a pool first."""

    async def newest_decisions(self) -> list[DecisionRecord]:
        """Give the newest decision about every pool, by the name of the pool."""

    async def prune_decisions(self, keep_days: float, limit: int) -> int:
        """Forget decisions that are older, at most `limit`; gives how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One worker as its driver knows it; `host` and `pid` are as in its lease, no pid where a host has one worker."""

    id: str
    pool: str
    host: str
    pid: int | None
    age_seconds: float
    draining: bool = False


class Driver(Protocol):
    """Starts and stops the workers of pools. Every method raises DriverUnavailable when it cannot be done now."""

    async def members(self, pool: str) -> list[Member]:
        """Give the workers of a pool that have not ended, those that drain too."""

    async def grow(self, pool: str, size: int) -> None:
        """See to it that so many workers run or start which do not drain. Returns before they are ready."""

    async def shrink(self, pool: str, victims: Sequence[Member], size: int) -> None:
        """Begin to drain these workers, after which `size` are left; returns at once.

        A victim gets no more jobs, and as much time for those it runs as the pool's grace; only then may it be killed.
        """

    async def close(self) -> None:
        """Let go. Workers whose life depends on this process are drained first."""
