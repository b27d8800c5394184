"""Measures pools for the autoscaler, and keeps its lease and its decisions."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

import msgspec

from taskplatform.autoscale.contract import (
    LEASE,
    Choice,
    DecisionRecord,
    LiveWorker,
    Measurement,
    TaskHistory,
    TaskLoad,
)
from taskplatform.ids import lowest_id_at
from taskplatform.store.contract import QUEUE_FULL
from taskplatform.store.postgres.asking import Asker
from taskplatform.store.postgres.together import Row
from taskplatform.store.statements import array, call

MOST_JOBS = 200_000
MOST_ATTEMPTS = 1_000
HISTORY_SECONDS = 3600.0
_DAY_SECONDS = 86_400.0


class Scale(Asker):
    """ScaleStore on Postgres."""

    async def hold_lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take or keep a lease."""
        (held,) = await self._write(call("hold_lease", name, holder, str(seconds)))
        return bool(held)

    async def keep_lease(self, name: str, holder: str, seconds: float) -> bool:
        """Prolong a lease that is held."""
        (held,) = await self._write(call("keep_lease", name, holder, str(seconds)))
        return bool(held)

    async def yield_lease(self, name: str, holder: str) -> None:
        """Give a lease up."""
        await self._write(call("yield_lease", name, holder))

    async def measure(self, window_seconds: float) -> Measurement:
        """Measure all pools in one transaction."""
        # Ids carry the clocks of those who made them: a day ahead takes in any that runs fast.
        now = time.time()
        ahead = _lowest(now + _DAY_SECONDS)
        usage, workers, arrivals, history, live = await self._write(
            call("measure_usage"),
            call("measure_workers"),
            call("measure_arrivals", str(window_seconds), _lowest(now - window_seconds), ahead),
            call("measure_history", _lowest(now - HISTORY_SECONDS), ahead, str(MOST_ATTEMPTS)),
            call("measure_live", QUEUE_FULL, str(MOST_JOBS)),
        )
        return Measurement(
            at=usage[0][0],
            loads=_loads(live, arrivals),
            histories=[TaskHistory(**dict(zip(_HISTORY, row, strict=True))) for row in history],
            workers=_workers(workers, live),
            used_hours={pool: hours for _, pool, hours in usage if pool is not None},
        )

    async def live_workers(self) -> list[LiveWorker]:
        """Read the living leases."""
        return _workers(await self._read(call("measure_workers")), ())

    async def record_decisions(self, holder: str, choices: Sequence[Choice]) -> bool:
        """Keep decisions, fenced by the lease."""
        (kept,) = await self._write(
            call(
                "record_decisions",
                LEASE,
                holder,
                array(choice.pool for choice in choices),
                array(choice.decision.workers for choice in choices),
                array(choice.decision.desired for choice in choices),
                array(choice.decision.reason for choice in choices),
                array(_facts(choice) for choice in choices),
                array(choice.worker_seconds for choice in choices),
            )
        )
        return len(kept) == len(choices)

    async def decisions(self, pool: str, limit: int, *, since: datetime | None = None) -> list[DecisionRecord]:
        """Read decisions about one pool."""
        asked = call("list_decisions", pool, None if since is None else since.isoformat(), str(limit))
        return [_decision(row) for row in await self._read(asked)]

    async def newest_decisions(self) -> list[DecisionRecord]:
        """Read the newest decision about each pool."""
        return [_decision(row) for row in await self._read(call("newest_decisions"))]

    async def prune_decisions(self, keep_days: float, limit: int) -> int:
        """Delete old decisions."""
        (gone,) = await self._write(call("prune_decisions", str(keep_days), str(limit)))
        return len(gone)


_HISTORY = ("pool", "task", "ended", "failed", "seconds", "longest_seconds")
_DECISION = ("at", "pool", "workers", "desired", "reason", "facts")


def _lowest(seconds: float) -> str:
    return str(lowest_id_at(int(seconds * 1000)))


def _facts(choice: Choice) -> str:
    return msgspec.json.encode({**asdict(choice.sample), **asdict(choice.decision)}).decode()


def _decision(row: Row) -> DecisionRecord:
    return DecisionRecord(**dict(zip(_DECISION, row, strict=True)))


def _loads(live: Iterable[Row], arrivals: Iterable[Row]) -> list[TaskLoad]:
    arrived: Counter[tuple[str, str]] = Counter()
    for pool, task, number in arrivals:
        arrived[pool, task] += number
    ready: Counter[tuple[str, str]] = Counter()
    running: Counter[tuple[str, str]] = Counter()
    oldest: defaultdict[tuple[str, str], float] = defaultdict(float)
    spent: defaultdict[tuple[str, str], float] = defaultdict(float)
    for pool, task, worker, number, age, seconds, _ in live:
        key = (pool, task)
        (ready if worker is None else running)[key] += number
        oldest[key] = max(oldest[key], age)
        spent[key] += seconds
    return [
        TaskLoad(
            pool=pool,
            task=task,
            ready=ready[pool, task],
            running=running[pool, task],
            oldest_age_seconds=oldest[pool, task],
            running_seconds=spent[pool, task],
            arrived=arrived[pool, task],
        )
        for pool, task in sorted({*ready, *running, *arrived})
    ]


def _workers(workers: Iterable[Row], live: Iterable[Row]) -> list[LiveWorker]:
    held: Counter[str] = Counter()
    longest: defaultdict[str, float] = defaultdict(float)
    for _, _, worker, number, _, _, age in live:
        if worker is not None:
            held[worker] += number
            longest[worker] = max(longest[worker], age)
    return [
        LiveWorker(
            name=name,
            pool=pool,
            host=host,
            pid=pid,
            slots=slots,
            draining=draining,
            running=held[name],
            longest_run_seconds=longest[name],
        )
        for name, pool, host, pid, slots, draining in workers
    ]
