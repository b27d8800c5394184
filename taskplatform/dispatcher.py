"""Moves jobs whose gate opens, by time or by room in their queue, to `queued` and their messages into the broker."""

from __future__ import annotations

import time
from asyncio import sleep
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from taskplatform.broker.contract import Broker
from taskplatform.errors import BrokerUnavailable
from taskplatform.job import Priority
from taskplatform.publish import Publisher, settled_rows
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.contract import QUEUE_FULL, DispatchStore, Release
from taskplatform.topology import work_queue
from taskplatform.tracing import Fact, Step

TIME = "time"
"""The gate that a scheduled or retrying job waits at, as the metric of released jobs names it."""
FIRST_HELD_WAIT_SECONDS = 0.02


class Dispatcher(Role):
    """Opens gates.

    A crash after the release leaves the jobs `queued` with an outbox row, from which the relay publishes; a crash after
    the publish only repeats messages.
    """

    name: ClassVar[str] = "dispatcher"

    def __init__(self, store: DispatchStore, broker: Broker, publish: Publisher, settings: Settings) -> None:
        super().__init__(publish.metrics, pause_seconds=settings.dispatch_poll_seconds)
        self._store = store
        self._broker = broker
        self._publish = publish
        self._queues = {
            (pool, priority): work_queue(pool, priority) for pool in settings.pools for priority in Priority
        }
        self._pools = settings.pools
        self._batch_jobs = settings.dispatch_batch_jobs
        self._queue_limit = settings.queue_limit_messages
        self._held_wait_seconds = FIRST_HELD_WAIT_SECONDS

    async def run_once(self) -> bool:
        """Release one batch of due jobs, and fill up the queues that jobs wait for; True when anything was moved.

        Due jobs whose queue is full wait for room like all others, so that the backlog stays in the store.
        Raises BrokerUnavailable, before it releases anything, while the broker is away: the jobs wait where they are.
        """
        if not self._broker.connected:
            raise BrokerUnavailable("the broker is away")
        counted = await self._broker.depths(list(self._queues.values()))
        depths = {queue: self._publish.freight.jobs_in(queue, messages) for queue, messages in counted.items()}
        full = [gate for gate, queue in self._queues.items() if depths.get(queue, 0) >= self._queue_limit]
        held = await self._store.hold_due(full, self._batch_jobs) if full else 0
        # More may have to be held than one batch: meanwhile the jobs of other queues go on.
        began = time.time()
        due = await self._store.release_due(self._batch_jobs, full)
        await self._hand_over(due, TIME, began)
        refilled = await self._refill(depths)
        if due or held:
            self._held_wait_seconds = FIRST_HELD_WAIT_SECONDS
        return bool(due or held) or refilled

    async def rest(self) -> None:
        """Wait until the next job is due, the store calls, or the poll interval is over."""
        wait = await self._store.seconds_to_next_due()
        if wait is not None and wait <= 0:
            # Due, and yet not released to us: another dispatcher holds it, and may fail to release it.
            wait = self._held_wait_seconds
            self._held_wait_seconds = min(2 * wait, self.pause_seconds)
            await sleep(wait)
            return
        self._held_wait_seconds = FIRST_HELD_WAIT_SECONDS
        await self._store.wait_for_due(self.pause_seconds if wait is None else min(wait, self.pause_seconds))

    async def _refill(self, depths: Mapping[str, int]) -> bool:
        refilled = False
        for pool, priority in await self._store.blocked_queues(self._pools):
            depth = depths.get(self._queues[pool, priority])
            if depth is None or depth >= self._queue_limit / 2:
                continue
            most = min(self._queue_limit - depth, self._batch_jobs)
            began = time.time()
            released = await self._store.release_blocked(pool, priority, most)
            await self._hand_over(released, QUEUE_FULL, began)
            refilled = refilled or bool(released)
        return refilled

    async def _hand_over(self, released: Sequence[Release], gate: str, began: float) -> None:
        if not released:
            return
        if self.metrics.tracer is not None:
            self.metrics.tracer.note_all(_opened(released, gate, began))
        self.metrics.jobs_released_total.labels(gate=gate).inc(len(released))
        confirmed = await self._publish(released)
        await self._store.settle_outbox(settled_rows(released, confirmed))


def _opened(released: Sequence[Release], gate: str, began: float) -> Iterator[Step]:
    ended = time.time()
    facts: dict[str, Fact] = {"gate": gate, "batch.jobs": len(released)}
    for release in released:
        yield Step(name="release", job=release.envelope, began=began, ended=ended, facts=facts)
