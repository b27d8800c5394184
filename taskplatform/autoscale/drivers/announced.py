"""Changes nothing: the number is published, and KEDA, or whoever reads it, acts upon it."""

from __future__ import annotations

from collections.abc import Sequence

from taskplatform.autoscale.contract import Member, ScaleStore


class Announced:
    """Knows the workers that hold a lease; whoever reads `desired` from the API makes it so."""

    def __init__(self, store: ScaleStore) -> None:
        self._store = store

    async def members(self, pool: str) -> list[Member]:
        """Give the workers that hold a lease."""
        return [
            Member(
                id=worker.name,
                pool=pool,
                host=worker.host,
                pid=worker.pid,
                age_seconds=0.0,
                draining=worker.draining,
            )
            for worker in await self._store.live_workers()
            if worker.pool == pool
        ]

    async def grow(self, pool: str, size: int) -> None:
        """Leave it to the reader of the number."""

    async def shrink(self, pool: str, victims: Sequence[Member], size: int) -> None:
        """Leave it to the reader of the number."""

    async def close(self) -> None:
        """Nothing is held."""
