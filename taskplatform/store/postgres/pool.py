"""A few connections that services share: opened when needed, dropped when broken."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.errors import Diagnostic
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import TupleRow

from taskplatform.errors import OutcomeUnknown, StoreUnavailable
from taskplatform.freshness import Watermark
from taskplatform.shards import own_map
from taskplatform.store.postgres.failures import CutOff, Purpose, translated
from taskplatform.store.postgres.hosts import connect_to_any
from taskplatform.store.statements import statements

ANSWER_SECONDS = 20.0
"""How long a connection may be lent: a server that stands still keeps its connections open, and says nothing."""
IDENTIFY_SECONDS = 3.0
"""How long one of several clusters may take to say which one it is."""
_COMMITTED_HERE_ALONE = "01000"


class Link(AsyncConnection[TupleRow]):
    """A connection that remembers when Postgres stopped waiting for its standbys: such a commit is not safe yet."""

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self.warned: str | None = None
        self.prepared: set[str] = set()
        """Names of the statements that this connection knows."""
        self.add_notice_handler(self._note)

    @classmethod
    async def to(cls, conninfo: str, cluster: int | None = None) -> Self:
        """Connect, to the cluster of a number where one is given. Raises StoreUnavailable, for another cluster too."""
        with translated(Purpose.CONNECT):
            link = await connect_to_any(conninfo, cls._open)
        if cluster is not None:
            await link.identify(cluster)
        return link

    @classmethod
    async def _open(cls, conninfo: str) -> Self:
        return await cls.connect(conninfo, autocommit=True, cursor_factory=AsyncRawCursor)

    @property
    def usable(self) -> bool:
        """Whether it is idle and nothing came in meanwhile: what a server says unasked is that it goes away."""
        if self.closed or self.pgconn.transaction_status != TransactionStatus.IDLE:
            return False
        watch = select.poll()
        watch.register(self.pgconn.socket, select.POLLIN)
        return not watch.poll(0)

    def cut(self) -> None:
        """Break the connection off: whoever waits on it hears that it went away."""
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.pgconn.socket)) as peer:
            peer.shutdown(socket.SHUT_RDWR)

    async def identify(self, cluster: int) -> None:
        """Ask which of several clusters this is. Raises StoreUnavailable when it is another than this one."""
        # An address that leads elsewhere by now must not answer for jobs that it never had.
        overdue = asyncio.get_running_loop().call_later(IDENTIFY_SECONDS, self.cut)
        try:
            with translated(Purpose.CONNECT):
                row = await (await self.execute(statements()["newest_map"])).fetchone()
            own_map(row, cluster)
        except BaseException:
            await self.close()
            raise
        finally:
            overdue.cancel()

    def _note(self, notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING" and notice.sqlstate == _COMMITTED_HERE_ALONE:
            self.warned = notice.message_primary


class Pool:
    """At most `limit` connections to one database, the one used last first.

    Whoever finds all in use waits for `patience_seconds` at most. With `cluster`, the database has to be in the one of
    several clusters that has this number. Where there is a `watermark`, whoever asks over a
    connection notes there how far in the database's log the answer may have come from.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        limit: int = 8,
        patience_seconds: float = 5.0,
        watermark: Watermark | None = None,
        cluster: int | None = None,
    ) -> None:
        self.watermark = watermark
        self._cluster = cluster
        self._conninfo = conninfo
        self._patience_seconds = patience_seconds
        self._free = asyncio.Semaphore(limit)
        self._idle: list[Link] = []
        self._closed = False

    @asynccontextmanager
    async def link(self, *, within_seconds: float = ANSWER_SECONDS) -> AsyncIterator[Link]:
        """Lend a connection that works as far as can be told without asking; it is cut off when the time is over.

        Raises StoreUnavailable.
        """
        await self._wait_for_room()
        try:
            link = await self._take()
            overdue = asyncio.get_running_loop().call_later(within_seconds, link.cut)
            try:
                yield link
            except (StoreUnavailable, OutcomeUnknown) as error:
                await link.close()
                if isinstance(error, (CutOff, OutcomeUnknown)):
                    # It may be one to a former primary, which takes no writes any more or stands still: the idle ones
                    # lead there too.
                    await self._close_idle()
                raise
            finally:
                overdue.cancel()
                await self._give_back(link)
        finally:
            self._free.release()

    async def warm(self) -> None:
        """Open one connection ahead, if Postgres is there."""
        with suppress(StoreUnavailable):
            async with self.link():
                pass

    async def close(self) -> None:
        """Close what is idle now, and everything else when it comes back."""
        self._closed = True
        await self._close_idle()

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _wait_for_room(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise StoreUnavailable("every connection to Postgres is busy") from None

    async def _take(self) -> Link:
        while self._idle:
            link = self._idle.pop()
            if link.usable:
                return link
            await link.close()
        return await Link.to(self._conninfo, self._cluster)

    async def _give_back(self, link: Link) -> None:
        if self._closed or not link.usable:
            await link.close()
        else:
            self._idle.append(link)
