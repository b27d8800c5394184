"""Asks replicas, one at a time and never for long; one that gives no answer is left alone for a while."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import psycopg

from taskplatform.errors import InvalidInput, StoreUnavailable, TaskplatformError
from taskplatform.store.postgres.failures import CutOff, Purpose, translated
from taskplatform.store.postgres.pool import Link, Pool
from taskplatform.store.postgres.reading import Reading
from taskplatform.store.routing import rest_seconds
from taskplatform.telemetry import logger

ANSWER_SECONDS = 0.5
"""How long a replica may take to answer, a search aside."""

Asking = Callable[[Link], Awaitable[Reading]]

_log = logger("taskplatform.store")


class Replica:
    """One replica and what is known of its health."""

    def __init__(self, conninfo: str, *, connections: int, cluster: int | None = None) -> None:
        self._pool = Pool(conninfo, limit=connections, patience_seconds=ANSWER_SECONDS, cluster=cluster)
        self._failures = 0
        self._rested_at = 0.0
        self._late: set[asyncio.Task[Reading]] = set()

    @property
    def rested(self) -> bool:
        """Whether it is worth asking."""
        return time.monotonic() >= self._rested_at

    async def read(self, ask: Asking, seconds: float) -> Reading | None:
        """Ask; None when it gives no answer in time. Raises InvalidInput for a question that would fail anywhere."""
        lent: list[Link] = []
        task = asyncio.create_task(self._read(ask, lent))
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                self._leave(task, lent)
        if not done:
            self._failed("no answer in time")
            return None
        try:
            reading = task.result()
        except InvalidInput:
            raise
        except (TaskplatformError, psycopg.Error) as error:
            # Say, one that has no such column yet: whoever is asked instead may have it.
            self._failed(str(error))
            return None
        if self._failures:
            _log.info("A replica answers again")
        self._failures = 0
        return reading

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*self._late, return_exceptions=True)
        await self._pool.close()

    async def _read(self, ask: Asking, lent: list[Link]) -> Reading:
        async with self._pool.link() as link:
            lent.append(link)
            try:
                with translated(Purpose.READ):
                    return await ask(link)
            except CutOff:
                if lent:
                    raise
                # We left: that says nothing of the idle connections.
                raise StoreUnavailable("no answer in time") from None

    def _leave(self, task: asyncio.Task[Reading], lent: list[Link]) -> None:
        # A cancelled question would first wait for the server to agree, and a frozen one never does: its connection is
        # cut instead, and the question fails by itself.
        self._late.add(task)
        task.add_done_callback(self._forget)
        while lent:
            lent.pop().cut()

    def _forget(self, task: asyncio.Task[Reading]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._rested_at = time.monotonic() + rest_seconds(self._failures, random.Random())
        if self._failures == 1:
            _log.warning("A replica does not answer: reads go to the others or to the primary", trouble=why)


class Replicas:
    """All replicas of one cluster, asked in turn."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas = list(replicas)
        self._turn = 0

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._replicas)

    async def read(self, ask: Asking, seconds: float = ANSWER_SECONDS) -> Reading | None:
        """Ask those worth it one after the other, each for so long at most, until one answers; None when none does."""
        for replica in self._in_turn():
            if replica.rested and (reading := await replica.read(ask, seconds)) is not None:
                return reading
        return None

    async def each(self, ask: Asking) -> AsyncIterator[Reading]:
        """Ask one after the other, those not worth it last of all, and give whatever each answers."""
        for replica in sorted(self._in_turn(), key=lambda replica: not replica.rested):
            reading = await replica.read(ask, ANSWER_SECONDS)
            if reading is not None:
                yield reading

    async def close(self) -> None:
        """Close all connections."""
        for replica in self._replicas:
            await replica.close()

    def _in_turn(self) -> Sequence[Replica]:
        self._turn += 1
        first = self._turn % len(self._replicas) if self._replicas else 0
        return [*self._replicas[first:], *self._replicas[:first]]
