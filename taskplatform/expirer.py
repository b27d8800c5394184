"""Moves waiting jobs whose deadline has passed to `expired`."""

from __future__ import annotations

from typing import ClassVar

from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.contract import DispatchStore
from taskplatform.telemetry import Metrics

EXPIRE_SECONDS = 1.0


class Expirer(Role):
    """Ends what nobody wants any more before it starts; one round is one transaction."""

    name: ClassVar[str] = "expirer"

    def __init__(self, store: DispatchStore, metrics: Metrics, settings: Settings) -> None:
        super().__init__(metrics, pause_seconds=EXPIRE_SECONDS)
        self._store = store
        self._batch_jobs = settings.dispatch_batch_jobs

    async def run_once(self) -> bool:
        """Expire one batch; True when there may be more."""
        expired = await self._store.expire(self._batch_jobs)
        self.metrics.jobs_expired_total.inc(expired)
        return expired >= self._batch_jobs
