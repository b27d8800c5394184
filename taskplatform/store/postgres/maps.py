"""Reads the shard map that a cluster knows."""

from __future__ import annotations

from collections.abc import Sequence

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


def learn(dsns: Sequence[str], homes: Homes) -> bool:
    """Ask the clusters for the map, one after the other; tells whether it changed. One that is away is passed over."""
    changed = False
    for number, dsn in enumerate(dsns):
        try:
            with translated(Purpose.CONNECT), psycopg.connect(complete_plain(dsn), autocommit=True) as link:
                found = map_told_by(link, number)
        except StoreUnavailable:
            continue
        changed = homes.adopt(found.map) or changed
    return changed


def map_told_by(link: psycopg.Connection, cluster: int) -> KnownMap:
    """Ask over a connection for the newest map of a cluster. Raises StoreUnavailable where it is not that cluster."""
    with translated(Purpose.CONNECT):
        row = link.execute(statements()["newest_map"].encode()).fetchone()
    return own_map(row, cluster)
