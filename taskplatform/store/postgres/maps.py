"""Reads the shard map that a cluster knows."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from taskplatform.errors import StoreUnavailable
from taskplatform.shards import Homes, KnownMap
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
                row = link.execute(statements()["newest_map"]).fetchone()
        except StoreUnavailable:
            continue
        found = None if row is None else KnownMap.of_row(*row)
        if found is not None and found.cluster == number:
            changed = homes.adopt(found.map) or changed
    return changed
