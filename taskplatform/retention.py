"""Forgets what has been kept long enough, and makes room for the days to come."""

from __future__ import annotations

from typing import ClassVar

from taskplatform.keeping import Policy
from taskplatform.service import Role
from taskplatform.store.upkeep import UpkeepStore
from taskplatform.telemetry import Metrics

PRUNE_SECONDS = 3600.0
PRUNE_ROWS = 5000


class Retention(Role):
    """Prunes at the start and every hour; pruning twice, or by several at once, does no harm."""

    name: ClassVar[str] = "retention"

    def __init__(self, store: UpkeepStore, metrics: Metrics, policy: Policy) -> None:
        super().__init__(metrics, pause_seconds=PRUNE_SECONDS)
        self._store = store
        self._policy = policy

    async def run_once(self) -> bool:
        """Prune one batch; True when there may be more."""
        pruned = await self._store.prune(self._policy, PRUNE_ROWS)
        counts = {kind: count for kind, count in pruned.counts.items() if count}
        if counts:
            self._log.info("Pruned what was kept long enough", **counts)
        return pruned.more
