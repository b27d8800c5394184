"""Keeps the broker's queues shallow: tells which queue holds as many jobs as it can use soon."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from taskplatform.broker.contract import Broker
from taskplatform.cancelling import cancel
from taskplatform.errors import Unavailable
from taskplatform.freight import Freight
from taskplatform.telemetry import logger

REFRESH_SECONDS = 1.0


class Backlog:
    """The jobs in the queues that this process fills: in what was counted a moment ago, and what it added since."""

    def __init__(
        self, broker: Broker, limit: int, freight: Freight, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._broker = broker
        self._limit = limit
        self._freight = freight
        self._clock = clock
        self._counted: dict[str, int] = {}
        self._added: Counter[str] = Counter()
        self._used: set[str] = set()
        self._counted_at = float("-inf")
        self._counting: asyncio.Task[None] | None = None
        self._log = logger("taskplatform.backlog")

    def take(self, queue: str) -> bool:
        """Take a place in a queue; False when it is full, and the job has to wait in the store."""
        self._used.add(queue)
        if self._counted.get(queue, 0) + self._added[queue] >= self._limit:
            return False
        self._added[queue] += 1
        return True

    def refresh(self) -> None:
        """Count again in the background when the last count is old; cheap to call for every batch."""
        if self._counting is None and self._used and self._clock() - self._counted_at >= REFRESH_SECONDS:
            self._counting = asyncio.get_running_loop().create_task(self._count())

    async def stop(self) -> None:
        """Count no more."""
        if self._counting is not None:
            await cancel(self._counting)

    async def _count(self) -> None:
        # A full queue too, though nothing is added to it: it is full until the broker says otherwise.
        queues = sorted(self._used)
        before = Counter(self._added)
        try:
            counted = await self._broker.depths(queues)
        except Unavailable as error:
            self._log.info("The queues cannot be counted", trouble=str(error))
            return
        finally:
            self._counted_at = self._clock()
            self._counting = None
        self._counted.update({queue: self._freight.jobs_in(queue, counted.get(queue, 0)) for queue in queues})
        # What was added while the broker counted may or may not be in its answer: it stays in ours.
        for queue in queues:
            self._added[queue] -= before[queue]
