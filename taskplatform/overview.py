"""The platform at a glance, as the store counts it, the API answers it and a terminal shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec


class Waiting(msgspec.Struct, frozen=True):
    """Live jobs of one pool in one state, and how long the oldest has been queued, running, held back or overdue."""

    jobs: int
    oldest_seconds: float


class WorkerNow(msgspec.Struct, frozen=True):
    """A worker that has a lease: `running` of its claims and `processes` are as of its last sign of life.

    A lease with less than 0 s left has lapsed: the worker is silent, and its jobs are about to be taken back.
    """

    id: str
    pool: str
    host: str
    processes: int
    running: int
    draining: bool
    lease_seconds: float
    up_seconds: float


class Totals(msgspec.Struct, frozen=True):
    """What was counted since the database's statistics began; two of them tell a rate.

    Postgres publishes them about once a second, and what a dropped partition has counted goes with it.
    """

    accepted: int
    attempts: int
    ended: int
    dead: int


class Glance(msgspec.Struct, frozen=True):
    """What costs little to look at, however many jobs there are: workers, batches in the outbox, totals, versions."""

    at: datetime
    workers: list[WorkerNow]
    outbox: int
    totals: Totals
    versions: dict[str, list[str]] = msgspec.field(default_factory=dict)


class Overview(msgspec.Struct, frozen=True):
    """Live jobs by pool and state, workers, batches in the outbox, dead letters that nobody has replayed, totals.

    Jobs and dead letters are counted at most so often that it costs little: `counted_seconds_ago`. `versions` are those
    that run, by part (api, worker, dispatcher, autoscaler, exporter), as their sessions with Postgres tell.
    """

    at: datetime
    pools: dict[str, dict[str, Waiting]]
    workers: list[WorkerNow]
    outbox: int
    dead_letters: int
    totals: Totals
    counted_seconds_ago: float = 0.0
    versions: dict[str, list[str]] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How many a second."""

    accepted: float
    attempts: float
    ended: float
    dead: float


def rates(earlier: Overview, later: Overview) -> Rates:
    """Tell the rates between two looks."""
    seconds = max((later.at - earlier.at).total_seconds(), 1e-3)
    found = {
        name: max(getattr(later.totals, name) - getattr(earlier.totals, name), 0) / seconds
        for name in Totals.__struct_fields__
    }
    return Rates(**found)
