"""Forgets what has been kept long enough, and makes room for the days to come."""

from __future__ import annotations

from typing import ClassVar

from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.contract import DispatchStore
from taskplatform.telemetry import Metrics

PRUNE_SECONDS = 3600.0
PRUNE_ROWS = 5000


class Retention(Role):
    """Prunes at the start and every hour; pruning twice, or by several at once, does no harm."""

    name: ClassVar[str] = "retention"

    def __init__(self, store: DispatchStore, metrics: Metrics, settings: Settings) -> None:
        super().__init__(metrics, pause_seconds=PRUNE_SECONDS)
        self._store = store
        self._days = settings.retention_days

    async def run_once(self) -> bool:
        """Prune one batch; True when there may be more."""
        counts = await self._store.prune(self._days, PRUNE_ROWS)
        pruned = {kind: count for kind, count in counts.items() if count}
        if pruned:
            self._log.info("Pruned what was kept long enough", **pruned)
        return any(count >= PRUNE_ROWS for count in counts.values())
