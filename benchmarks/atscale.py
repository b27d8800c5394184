"""`make bench-scale`: the platform with full tables beside itself with nearly empty ones, in turn."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import msgspec
import psycopg

from benchmarks import bulk
from benchmarks.costs import Costs
from benchmarks.endured import endured
from benchmarks.figures import Sample, spreads_of, values_of
from benchmarks.goals import DEEP, LONG, SHALLOW, SHORT
from benchmarks.keeping import LATEST, PARTIAL, publish
from benchmarks.outcome import AtScale, machine, this_moment
from benchmarks.processors import Processors
from benchmarks.reservoir import Reservoir, reservoir
from taskplatform.store.opening import opened
from taskplatform.store.postgres.migrate import migrate
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.store.postgres.work import PostgresWorkStore
from tests.native.servers import Servers, private_servers

_ROUNDS = 5
_SIZES = {SHORT: 100_000, LONG: 10_000_000, SHALLOW: 1_000, DEEP: 1_000_000}
_PARTS = {"history": (SHORT, LONG), "waiting": (SHALLOW, DEEP)}
_LIVE_BESIDE_HISTORY = 1_000
_SAMPLED_IDS = 2_000
_SHOWN = (
    "drained_per_s",
    "drained_cpu_ms_per_1000",
    "accept_ms_per_1000",
    "claim_finish_ms_per_1000",
    "dispatch_ms_per_1000",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How full the tables are, as a share of what the goals name, and how much each round does.

    Ended jobs are spread over as many days as they are kept by default.
    """

    share: float = 1.0
    rounds: int = _ROUNDS
    minutes: float = 9.0
    days: int = 30
    jobs: int = 4000
    warm_up_seconds: float = 3.0
    drain_seconds: float = 8.0
    only: str = ""

    @property
    def whole(self) -> bool:
        """Whether a run of it is one for the record."""
        return self.share >= 1 and self.rounds >= _ROUNDS and not self.only

    def sizes(self) -> dict[str, int]:
        """Give the number of jobs that each side begins with."""
        return {side: max(300, round(count * self.share)) for side, count in _SIZES.items() if self.takes(side)}

    def takes(self, side: str) -> bool:
        """Whether this side is measured."""
        return not self.only or side in _PARTS[self.only]


@dataclass(slots=True, kw_only=True)
class Findings:
    """What was measured so far."""

    tell: Callable[[str], None]
    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def note(self, side: str, number: int, measure: Callable[[], dict[str, float]]) -> None:
        """Measure, and keep the figures or the failure."""
        with endured(f"round {number}, {side}", self.failures, self.tell):
            before = Processors.now()
            figures = measure()
            foreign = Processors.now().foreign_percent_since(before)
            self.samples.append(Sample(side=side, round=number, foreign_cpu_percent=foreign, figures=figures))
            line = "  ".join(f"{name} {figures[name]:,.1f}" for name in _SHOWN if name in figures)
            self.tell(f"round {number}  {side:<14} {line}")


def main() -> int:
    """Measure, print and keep; 0 when nothing failed."""
    wanted = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    extent = Extent(share=wanted.share, rounds=wanted.rounds, minutes=wanted.minutes, only=wanted.only)
    findings = Findings(tell=_tell)
    try:
        with private_servers() as servers:
            measure(servers, extent, findings)
    finally:
        # Also what was measured before somebody ended it.
        _keep(findings, extent)
    return 1 if findings.failures else 0


def _keep(findings: Findings, extent: Extent) -> None:
    rounds = min((sum(one.side == side for one in findings.samples) for side in extent.sizes()), default=0)
    name = LATEST if extent.whole and rounds >= _ROUNDS else PARTIAL
    found = AtScale(
        made_at=this_moment(),
        machine=machine(),
        sizes=extent.sizes(),
        samples=findings.samples,
        spreads=spreads_of(values_of(findings.samples)),
        failures=findings.failures,
    )
    text = publish(name, lambda record: msgspec.structs.replace(record, at_scale=found))
    _tell(f"\n{text}\nkept in benchmarks/results/{name}.json and .md")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.atscale", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="rounds of all sides")
    parser.add_argument("--share", type=float, default=1.0, help="how full the tables are made, 1 for the record")
    parser.add_argument(
        "--only", choices=tuple(_PARTS), default="", help="one half: with history, or with jobs waiting"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no round later than this")
    return parser.parse_args()


def measure(servers: Servers, extent: Extent, findings: Findings) -> None:
    """Fill two databases with history and two platforms with waiting jobs, and measure all of them in turn."""
    began, sizes, tell = time.monotonic(), extent.sizes(), findings.tell
    with ExitStack() as cleanup:
        histories = {
            side: cleanup.enter_context(history(servers, sizes[side], extent.days))
            for side in (SHORT, LONG)
            if side in sizes
        }
        pools = {
            side: cleanup.enter_context(reservoir(servers, side, sizes[side]))
            for side in (SHALLOW, DEEP)
            if side in sizes
        }
        tell(f"filled after {time.monotonic() - began:.0f} s: {sizes}")
        for number in range(1, extent.rounds + 1):
            if time.monotonic() - began > extent.minutes * 60:
                tell(f"the time is over after {number - 1} rounds")
                break
            _round(findings, number, histories, pools, extent)
        for side, pool in pools.items():
            with endured(side, findings.failures, tell):
                pool.verify()


def _round(
    findings: Findings, number: int, histories: dict[str, str], pools: dict[str, Reservoir], extent: Extent
) -> None:
    for side in sorted(histories, reverse=not number % 2):
        findings.note(side, number, partial(costs_in, histories[side], extent.jobs))
    for side in sorted(pools, reverse=not number % 2):
        findings.note(side, number, partial(_drained, pools[side], extent))


def _drained(pool: Reservoir, extent: Extent) -> dict[str, float]:
    return pool.drain(extent.warm_up_seconds, extent.drain_seconds) | costs_in(pool.url, extent.jobs)


@contextmanager
def history(servers: Servers, count: int, days: int) -> Iterator[str]:
    """Give a database with so many ended jobs."""
    home = servers.new_home()
    try:
        migrate(home.database_url)
        bulk.add_finished(home.database_url, count, days)
        with psycopg.connect(home.database_url, autocommit=True) as connection:
            bulk.add_waiting(connection, range(_LIVE_BESIDE_HISTORY))
        bulk.settle(home.database_url)
        yield home.database_url
    finally:
        servers.drop_home(home)


def costs_in(url: str, jobs: int) -> dict[str, float]:
    """Measure what each step costs in a database, by taking some jobs through it."""
    return asyncio.run(_measured_costs(url, jobs))


async def _measured_costs(url: str, jobs: int) -> dict[str, float]:
    async with opened(PostgresStore(url)) as store:
        with PostgresWorkStore(url) as work:
            costs = Costs(url=url, store=store, work=work, sample_ids=_some_ids(url))
            try:
                return await costs.measure(jobs)
            finally:
                costs.close()


def _some_ids(url: str) -> list[UUID]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "(SELECT id FROM finished_jobs TABLESAMPLE SYSTEM (1) LIMIT %s)"
            " UNION ALL (SELECT id FROM finished_jobs LIMIT 100)"
            " UNION ALL (SELECT id FROM jobs TABLESAMPLE SYSTEM (1) LIMIT %s)",
            (_SAMPLED_IDS, _SAMPLED_IDS),
        )
        return [row[0] for row in rows]


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
