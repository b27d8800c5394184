"""Reads the shard map that a cluster knows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import psycopg

from taskplatform.errors import StoreUnavailable
from taskplatform.shards import Homes, KnownMap, own_map
from taskplatform.store.postgres.asking import Asker
from taskplatform.store.postgres.conninfo import complete_plain
from taskplatform.store.postgres.failures import Purpose, translated
from taskplatform.store.statements import call, statements


class Maps(Asker):
    """What one cluster knows of all."""

    async def shard_map(self) -> KnownMap | None:
        """Read the newest map; None in a cluster that is the only one."""
        found = await self._read(call("newest_map"))
        return KnownMap.of_row(*found[0]) if found else None


def learn(dsns: Sequence[str], homes: Homes) -> None:
    """Ask the clusters, one after the other, until one tells the map."""
    for number, dsn in enumerate(dsns):
        with suppress(StoreUnavailable):
            with translated(Purpose.CONNECT), psycopg.connect(complete_plain(dsn), autocommit=True) as link:
                found = map_told_by(link, number)
            homes.adopt(found.map)
            return


def map_told_by(link: psycopg.Connection, cluster: int) -> KnownMap:
    """Ask over a connection for the newest map of a cluster. Raises StoreUnavailable where it is not that cluster."""
    with translated(Purpose.CONNECT):
        row = link.execute(statements()["newest_map"].encode()).fetchone()
    return own_map(row, cluster)
