"""Hears when something may be due, on a connection of its own."""

from __future__ import annotations

import asyncio

import psycopg

from taskplatform.errors import StoreUnavailable
from taskplatform.store.postgres.pool import Link

_CHANNEL = "taskplatform_due"
_RECONNECT_SECONDS = 0.5


class Bell:
    """Postgres' NOTIFY, for one listener at a time."""

    def __init__(self, conninfo: str, cluster: int | None) -> None:
        self._conninfo = conninfo
        self._cluster = cluster
        self._link: Link | None = None

    async def wait(self, timeout_seconds: float) -> None:
        """Return at the next ring, after the timeout, or when rings may have been missed; never raise."""
        try:
            if self._link is None:
                self._link = await self._listen()
                return
            async for _ in self._link.notifies(timeout=timeout_seconds, stop_after=1):
                return
        except (psycopg.Error, StoreUnavailable):
            await self.close()
            await asyncio.sleep(min(timeout_seconds, _RECONNECT_SECONDS))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Hang up; `wait` would connect again."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _listen(self) -> Link:
        link = await Link.to(self._conninfo, self._cluster)
        await link.execute(f"LISTEN {_CHANNEL}")
        return link
