"""A platform with many jobs waiting, kept at the same level while it runs them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from benchmarks import bulk
from benchmarks.ledger import Ledger
from benchmarks.places import Places, Results
from benchmarks.roster import PLATFORM
from tests.native.servers import Servers
from tests.native.stack import Stack

_POLL_SECONDS = 0.01
_AT_ONCE = 250
_AHEAD = 2000
_SPREAD_SECONDS = 60.0
_SCHEDULED_SHARE = 0.2


@dataclass(slots=True, kw_only=True)
class Reservoir:
    """Waiting jobs in front of a worker that is started for each measurement; `level` of them wait all the time."""

    servers: Servers
    stack: Stack
    ledger: Ledger
    level: int
    _connection: psycopg.Connection
    _next: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)
    _late: list[int] = field(default_factory=list, init=False)

    @property
    def url(self) -> str:
        """Its database."""
        return self.stack.home.database_url

    def fill(self) -> None:
        """Put in the jobs, and some whose time comes later, while nothing moves them."""
        bulk.add_waiting(self._connection, range(self.level), spread_seconds=_SPREAD_SECONDS)
        self._next = self.level
        # Numbers that the ledger does not see: they do not run here.
        bulk.add_scheduled(self._connection, range(round(self.level * _SCHEDULED_SHARE)))
        bulk.settle(self.url)

    def drain(self, warm_up_seconds: float, seconds: float) -> dict[str, float]:
        """Let a worker run jobs and keep the level; gives jobs per second and processor time after the warm-up."""
        self.stack.dispatcher.start()
        self.stack.worker.start()
        self.stack.dispatcher.await_ready()
        self.stack.worker.await_ready()
        try:
            self._feed(warm_up_seconds)
            own, shared = self.stack.usage(), self.servers.usage()
            began, before = time.monotonic(), self._finished()
            self._feed(seconds)
            ended, after = time.monotonic(), self._finished()
            cpu = (
                self.stack.usage().cpu_seconds + self.servers.usage().cpu_seconds - own.cpu_seconds - shared.cpu_seconds
            )
        finally:
            self.stack.worker.stop()
            self.stack.dispatcher.stop()
        jobs = after - before
        return {"drained_per_s": jobs / (ended - began), "drained_cpu_ms_per_1000": cpu / max(jobs, 1) * 1e6}

    def verify(self) -> None:
        """Compare what ran with what is stored. Raises RuntimeError when they differ."""
        statement = "SELECT result::int FROM finished_jobs WHERE worker NOT LIKE '%@costs'"
        stored = sorted(row[0] for row in self._connection.execute(statement))
        ran = [number for number in range(self._next) if self.ledger.runs(number)]
        if stored != ran:
            raise RuntimeError(f"{len(ran)} jobs ran and {len(stored)} results are stored")

    def _feed(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            missing = self.level - (self._next - self._ran())
            if missing >= min(_AT_ONCE, self.level // 4):
                bulk.add_waiting(self._connection, range(self._next, self._next + missing))
                self._connection.execute("SELECT pg_notify('taskplatform_due', '')")
                self._next += missing
            time.sleep(_POLL_SECONDS)

    def _ran(self) -> int:
        # Jobs run nearly in the order of their numbers; those that a stopped worker gave back are late.
        ahead = range(self._seen, min(self._next, self._seen + _AHEAD))
        last = max((number for number in ahead if self.ledger.runs(number)), default=self._seen - 1)
        self._late = [number for number in (*self._late, *range(self._seen, last + 1)) if not self.ledger.runs(number)]
        self._seen = last + 1
        return self._seen - len(self._late)

    def _finished(self) -> int:
        row = self._connection.execute("SELECT count(*) FROM finished_jobs WHERE state = 'succeeded'").fetchone()
        return int(row[0]) if row else 0


@contextmanager
def reservoir(servers: Servers, name: str, level: int) -> Iterator[Reservoir]:
    """Start a platform, stop its worker and dispatcher, and fill its table."""
    ledger = Ledger(servers.folder / f"{name}.ledger")
    places = Places(broker_url="", database_url="", redis_url="", ledger=str(ledger.path), results=Results.POSTGRES)
    with Stack(servers, PLATFORM.settings or {}, environment=places.environment()) as stack:
        stack.worker.stop()
        stack.dispatcher.stop()
        with psycopg.connect(stack.home.database_url, autocommit=True) as connection:
            made = Reservoir(servers=servers, stack=stack, ledger=ledger, level=level, _connection=connection)
            made.fill()
            yield made
