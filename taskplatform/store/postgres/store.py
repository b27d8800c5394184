"""The store of services: everything that the contracts promise, over one small pool of connections."""

from __future__ import annotations

from collections.abc import Sequence

from taskplatform.freshness import Position, Watermark
from taskplatform.store.postgres.bell import Bell
from taskplatform.store.postgres.conninfo import complete, complete_replica
from taskplatform.store.postgres.dispatch import Dispatch
from taskplatform.store.postgres.intake import Intake
from taskplatform.store.postgres.operate import Operate
from taskplatform.store.postgres.pool import Pool
from taskplatform.store.postgres.read import Read
from taskplatform.store.postgres.replicas import Replica, Replicas
from taskplatform.store.postgres.scale import Scale
from taskplatform.store.postgres.upkeep import Upkeep
from taskplatform.store.postgres.watching import Watching


class PostgresStore(Intake, Read, Operate, Dispatch, Upkeep, Scale, Watching):
    """All that the contracts ask of a `Cluster`, on one Postgres, in one loop.

    `dsn` is a libpq connection string; of several hosts the one that takes writes is used. Connections are made when
    they are needed and again after they broke, `connections` of them at most. Reads that say what they have seen go to
    `replicas` where they can; `watermark` keeps count of what this process writes and sees, as that needs. With
    `cluster`, a server that is not the one of this number among several is not asked anything else.
    Raises SettingsError for a malformed connection string.
    """

    def __init__(
        self,
        dsn: str,
        *,
        key_lifetime_seconds: float = 86_400.0,
        connections: int = 8,
        replicas: Sequence[str] = (),
        watermark: Watermark | None = None,
        cluster: int | None = None,
    ) -> None:
        conninfo = complete(dsn)
        counted = watermark or (Watermark() if replicas else None)
        super().__init__(
            Pool(conninfo, limit=connections, watermark=counted, cluster=cluster),
            key_lifetime_seconds=key_lifetime_seconds,
        )
        self._bell = Bell(conninfo, cluster)
        self._replicas = Replicas(
            [Replica(complete_replica(each), connections=connections, cluster=cluster) for each in replicas]
        )

    @property
    def position(self) -> Position | None:
        """How far this process may have written or seen."""
        return None if self._pool.watermark is None else self._pool.watermark.position

    def note(self, position: Position) -> None:
        """Count what was read elsewhere, up to there, as seen by this process."""
        if self._pool.watermark is not None:
            self._pool.watermark.note(position)

    async def open(self) -> None:
        """Connect, so that the first caller does not wait; while Postgres is away, each call says so, not this one."""
        await self._pool.warm()

    async def close(self) -> None:
        """Close all connections."""
        await self._bell.close()
        await self._replicas.close()
        await self._pool.close()

    async def wait_for_due(self, timeout_seconds: float) -> None:
        """Return when something may be due; one caller at a time."""
        await self._bell.wait(timeout_seconds)
