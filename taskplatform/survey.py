"""Looks at what costs little to look at: queues, outbox, workers, standbys and sessions."""

from __future__ import annotations

import math
from collections import Counter
from typing import ClassVar

from taskplatform.broker.contract import Broker
from taskplatform.job import Priority
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.watching import WatchStore
from taskplatform.telemetry import Metrics
from taskplatform.topology import dead_queue, work_queue


class Survey(Role):
    """Shows the figures of the moment; what cannot be looked at is forgotten: no old figure passes for a new one."""

    name: ClassVar[str] = "survey"

    def __init__(self, store: WatchStore, broker: Broker, metrics: Metrics, settings: Settings) -> None:
        super().__init__(metrics, pause_seconds=settings.exporter_seconds)
        self._store = store
        self._broker = broker
        self._pools = settings.pools
        self._work = {work_queue(pool, priority): (pool, priority) for pool in self._pools for priority in Priority}
        self._dead = {dead_queue(pool): pool for pool in self._pools}

    async def run_once(self) -> bool:
        """Look once, at the store and then at the broker."""
        try:
            await self._look_at_the_outbox()
            await self._look_at_the_workers()
            await self._look_at_postgres()
        except BaseException:
            self._forget_the_store()
            raise
        finally:
            await self._look_at_the_broker()
        return False

    async def _look_at_the_outbox(self) -> None:
        found = await self._store.outbox_state()
        self.metrics.outbox_rows.set(found.rows)
        self.metrics.outbox_jobs.set(found.jobs)
        self.metrics.outbox_oldest_age_seconds.set(found.oldest_seconds)

    async def _look_at_the_workers(self) -> None:
        crews = await self._store.crews()
        workers: Counter[tuple[str, str]] = Counter({(pool, "ready"): 0 for pool in self._pools})
        slots: Counter[str] = Counter(dict.fromkeys(self._pools, 0))
        for crew in crews:
            workers[crew.pool, "draining" if crew.draining else "ready"] += crew.workers
            slots[crew.pool] += 0 if crew.draining else crew.slots
        self.metrics.workers.clear()
        self.metrics.ready_slots.clear()
        for (pool, state), number in workers.items():
            self.metrics.workers.labels(pool=pool, state=state).set(number)
        for pool, number in slots.items():
            self.metrics.ready_slots.labels(pool=pool).set(number)

    async def _look_at_postgres(self) -> None:
        metrics = self.metrics
        standbys, sessions = await self._store.standbys(), await self._store.sessions()
        for gauge in (metrics.replica_lag_seconds, metrics.replica_lag_bytes, metrics.postgres_sessions):
            gauge.clear()
        for standby in standbys:
            metrics.replica_lag_seconds.labels(replica=standby.name).set(standby.lag_seconds)
            metrics.replica_lag_bytes.labels(replica=standby.name).set(standby.lag_bytes)
        for state, number in sessions.by_state.items():
            metrics.postgres_sessions.labels(state=state).set(number)
        metrics.postgres_oldest_transaction_seconds.set(sessions.oldest_transaction_seconds)

    async def _look_at_the_broker(self) -> None:
        metrics = self.metrics
        try:
            depths = await self._broker.depths([*self._work, *self._dead])
        finally:
            metrics.queue_messages.clear()
            metrics.dead_queue_messages.clear()
        for queue, depth in depths.items():
            if queue in self._work:
                pool, priority = self._work[queue]
                metrics.queue_messages.labels(pool=pool, priority=priority).set(depth)
            else:
                metrics.dead_queue_messages.labels(pool=self._dead[queue]).set(depth)

    def _forget_the_store(self) -> None:
        metrics = self.metrics
        for single in (
            *(metrics.outbox_rows, metrics.outbox_jobs, metrics.outbox_oldest_age_seconds),
            metrics.postgres_oldest_transaction_seconds,
        ):
            single.set(math.nan)
        for gauge in (
            *(metrics.workers, metrics.ready_slots, metrics.postgres_sessions),
            *(metrics.replica_lag_seconds, metrics.replica_lag_bytes),
        ):
            gauge.clear()
