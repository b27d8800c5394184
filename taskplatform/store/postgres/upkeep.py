"""Keeps the tables in shape: partitions come and go, what nobody needs any more is forgotten."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from taskplatform.store.postgres.asking import Asker
from taskplatform.store.postgres.partitions import add_calls, past_retention
from taskplatform.store.statements import Call, call

_log = logging.getLogger(__name__)


class Upkeep(Asker):
    """The upkeep that DispatchStore promises."""

    async def prune(self, retention_days: float, limit: int) -> Mapping[str, int]:
        """Add and drop partitions and forget old rows, at most `limit` of each kind."""
        now = datetime.now(UTC)
        done = Counter(partitions_added=0, partitions_dropped=0)
        for made in add_calls(now.date()):
            done["partitions_added"] += await self._answers(made, "added")
        names = [row[0] for row in await self._read(call("list_partitions"))]
        for name in past_retention(names, now - timedelta(days=retention_days)):
            done["partitions_dropped"] += await self._answers(call("drop_partition", name), "dropped")
        days, most = str(retention_days), str(limit)
        for kind, forget in (
            ("keys", call("prune_keys", most)),
            ("jobs", call("prune_jobs", days, most)),
            ("attempts", call("prune_attempts", days, most)),
            ("letters", call("prune_letters", days, most)),
        ):
            (forgotten,) = await self._write(forget)
            done[kind] += len(forgotten)
        return done

    async def _answers(self, asked: Call, wanted: str) -> bool:
        (((answer,),),) = await self._write(asked)
        if answer in ("occupied", "busy"):
            # It is left for the next time; ids without a partition are kept by the default one.
            _log.warning(
                "Partition left as it is: %s (%s %s)", answer, asked.name, " ".join(map(str, asked.parameters))
            )
        return bool(answer == wanted)
