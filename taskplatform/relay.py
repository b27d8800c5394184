"""Moves into the broker what should be there and is not: outbox rows nobody settled, and messages that got lost."""

from __future__ import annotations

from typing import ClassVar

from taskplatform.broker.contract import Broker
from taskplatform.errors import BrokerUnavailable
from taskplatform.job import Priority
from taskplatform.publish import Publisher
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.contract import DispatchStore
from taskplatform.topology import work_queue

RELAY_SECONDS = 0.5
RELAY_ROWS = 50
"""Outbox rows in one transaction; each stands for a whole batch of jobs."""
CHECKS_PER_STRANDED_AGE = 3


class Relay(Role):
    """Publishes what stands in outbox rows for longer than `relay_after_seconds`, and deletes the rows.

    A crash in between rolls the deletion back, so the messages are published again.
    """

    name: ClassVar[str] = "relay"

    def __init__(self, store: DispatchStore, broker: Broker, publish: Publisher, settings: Settings) -> None:
        super().__init__(publish.metrics, pause_seconds=RELAY_SECONDS)
        self._store = store
        self._broker = broker
        self._publish = publish
        self._age_seconds = settings.relay_after_seconds

    async def run_once(self) -> bool:
        """Relay a few rows; True when there may be more. Raises BrokerUnavailable while the broker is away."""
        if not self._broker.connected:
            raise BrokerUnavailable("the broker is away")
        rows = await self._store.relay(self._age_seconds, RELAY_ROWS, self._publish)
        self.metrics.outbox_relayed_total.inc(rows)
        return rows >= RELAY_ROWS


class StrandedRelay(Role):
    """Publishes queued jobs again whose queue is empty although they have waited for `stranded_after_seconds`.

    No confirmed message is ever lost by a broker that keeps its promises; this is the way back from one that did not,
    such as a broker that was set up anew. A job that a worker has fetched already is published twice: harmless.
    """

    name: ClassVar[str] = "stranded_relay"

    def __init__(self, store: DispatchStore, broker: Broker, publish: Publisher, settings: Settings) -> None:
        super().__init__(publish.metrics, pause_seconds=settings.stranded_after_seconds / CHECKS_PER_STRANDED_AGE)
        self._store = store
        self._broker = broker
        self._publish = publish
        self._age_seconds = settings.stranded_after_seconds
        self._batch_jobs = settings.dispatch_batch_jobs
        self._queues = {
            work_queue(pool, priority): (pool, priority) for pool in settings.pools for priority in Priority
        }

    async def run_once(self) -> bool:
        """Publish one batch of stranded jobs for each empty queue; the next waits until the queue is empty again."""
        depths = await self._broker.depths(list(self._queues))
        for queue, depth in depths.items():
            if depth > 0:
                continue
            pool, priority = self._queues[queue]
            stranded = await self._store.stranded(pool, priority, self._age_seconds, self._batch_jobs)
            if stranded:
                confirmed = await self._publish(stranded)
                await self._store.touch(sorted(confirmed))
                self.metrics.jobs_republished_total.inc(len(confirmed))
                self._log.warning("Published stranded jobs again", queue=queue, jobs=len(confirmed))
        return False
