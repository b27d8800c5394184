"""Bare connections for those who drive libpq on an event loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from psycopg.pq.abc import PGconn

from taskplatform.cancelling import cancel
from taskplatform.store.postgres.conninfo import complete
from taskplatform.store.postgres.pool import Link


class RawConnection:
    """One connection to the primary, in autocommit mode; `pgconn` is libpq's own handle."""

    def __init__(self, dsn: str, cluster: int | None = None) -> None:
        """Connect, which blocks for a few seconds; with `cluster`, to the one of this number. Raises StoreUnavailable.

        There must be no event loop of asyncio in this thread.
        """
        self._link = _run(Link.to(complete(dsn), cluster))

    @property
    def pgconn(self) -> PGconn:
        """The handle of libpq; the connection may be used through it alone from now on."""
        return self._link.pgconn

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self._link.pgconn.finish()


def _run(connecting: Coroutine[Any, Any, Link]) -> Link:
    # asyncio.run would wait for the threads that still look up the names of hosts, however long they take.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_and_nothing_else(connecting))
    finally:
        loop.close()


async def _and_nothing_else(connecting: Coroutine[Any, Any, Link]) -> Link:
    try:
        return await connecting
    finally:
        await cancel(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))
