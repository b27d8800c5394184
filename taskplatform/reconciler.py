"""Compares broker, outbox and rows without end, and counts the jobs that nobody has."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from taskplatform.broker.contract import Broker
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.watching import Owed, WatchStore
from taskplatform.telemetry import Metrics
from taskplatform.topology import dead_queue, work_queues

YOUNG_SECONDS = 5.0
"""A job that was queued within this time may be in a commit that the first look did not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Jobs of a pool that nobody has: queued ones without a message, running ones without a worker."""

    message: int = 0
    worker: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a pool's queued jobs are: in the outbox, in messages of the broker, or fetched by workers and not claimed.

    Each message may carry up to `most_jobs`.
    """

    outbox: int = 0
    broker: int = 0
    fetched: int = 0
    most_jobs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is owed in a pool, and where messages of it are."""

    owed: Owed
    found: Found

    @property
    def missing(self) -> Missing:
        """How many jobs nobody has, at least."""
        return missing(self.owed, self.found)


def missing(owed: Owed, found: Found) -> Missing:
    """Say how many jobs of a pool are missing at least.

    Messages that are there twice, or of jobs too young to be owed, hide as many that are not, and so does one that
    might carry more jobs than it does: the figure is a lower bound, and exact for an empty queue.
    """
    accounted = found.outbox + found.most_jobs * found.broker + found.fetched
    return Missing(message=max(owed.queued - accounted, 0), worker=owed.running_without_lease)


def least(seen: Iterable[Missing]) -> Missing:
    """Give what was missing all the time: what moved from one place to another between two looks was not."""
    every = list(seen)
    return Missing(message=min(one.message for one in every), worker=min(one.worker for one in every))


class Ledger:
    """Compares outbox, broker, workers and rows, pool by pool.

    Scheduled, blocked and retrying jobs are in the store's own hands, ended ones have their row. What is left is queued
    or running, and few, however many wait: the index of queued jobs finds them. The places are looked at in the order
    in which messages travel, outbox, broker, workers, so that one on its way is counted twice rather than not at all;
    workers tell with their lease what they have fetched, so a figure counts when it held for two of those.

    Nobody sees from outside how many jobs a message carries. Every one counts for as many as any task that was ever
    seen here lets travel together.
    """

    def __init__(self, store: WatchStore, broker: Broker, pools: Iterable[str]) -> None:
        self._store = store
        self._broker = broker
        self._pools = set(pools)
        self._most_jobs = 1

    async def look(self) -> dict[str, Account]:
        """Look once. Raises StoreUnavailable and BrokerUnavailable."""
        began = time.monotonic()
        tasks = (await self._store.tasks()).values()
        self._most_jobs = max(self._most_jobs, *(task.spec.bundle_jobs for task in tasks), 1)
        outbox = await self._store.in_outbox()
        pools = sorted(self._pools)
        queues = {queue: pool for pool in pools for queue in (*work_queues(pool), dead_queue(pool))}
        depths = await self._broker.depths(list(queues))
        owed = await self._store.owed(YOUNG_SECONDS + time.monotonic() - began)
        fetched = await self._store.crews()
        # A pool of jobs that is in no setting is looked at from the next time on.
        self._pools.update(owed)
        return {
            pool: Account(
                owed=owed.get(pool, Owed(queued=0, running_without_lease=0)),
                found=Found(
                    outbox=outbox.get(pool, 0),
                    broker=sum(depths.get(queue, 0) for queue, whose in queues.items() if whose == pool),
                    fetched=sum(crew.waiting for crew in fetched if crew.pool == pool),
                    most_jobs=self._most_jobs,
                ),
            )
            for pool in pools
        }


class Reconciler(Role):
    """Shows how many jobs are in none of outbox, broker, lease, waiting and terminal state."""

    name: ClassVar[str] = "reconciler"

    def __init__(self, store: WatchStore, broker: Broker, metrics: Metrics, settings: Settings) -> None:
        super().__init__(metrics, pause_seconds=settings.exporter_seconds)
        self._ledger = Ledger(store, broker, settings.pools)
        self._looks = math.ceil(2 * settings.lease_renew_seconds / settings.exporter_seconds) + 1
        self._seen: dict[str, deque[Missing]] = {}

    async def run_once(self) -> bool:
        """Look once. Without broker or store nothing is known, and nothing is shown."""
        try:
            looked = await self._ledger.look()
        except BaseException:
            self._seen.clear()
            self.metrics.jobs_unaccounted.clear()
            raise
        for pool, account in looked.items():
            seen = self._seen.setdefault(pool, deque(maxlen=self._looks))
            seen.append(account.missing)
            if len(seen) == self._looks:
                held = least(seen)
                self.metrics.jobs_unaccounted.labels(pool=pool, lacks="message").set(held.message)
                self.metrics.jobs_unaccounted.labels(pool=pool, lacks="worker").set(held.worker)
        return False
