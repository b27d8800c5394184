"""Forgets what has been kept long enough, after it went into the archive, and makes room for the days to come."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar

from taskplatform.keeping import Policy
from taskplatform.service import Role
from taskplatform.store.upkeep import Archive, UpkeepStore
from taskplatform.telemetry import Metrics

PRUNE_SECONDS = 3600.0
PRUNE_ROWS = 5000
ARCHIVE_RETRY_SECONDS = 60.0


class Retention(Role):
    """Prunes at the start and every hour; pruning twice, or by several at once, does no harm.

    An archive that takes nothing, or is not known here, stops no more than the forgetting of what it has to take, and
    is tried again after a minute.
    """

    name: ClassVar[str] = "retention"

    def __init__(self, store: UpkeepStore, metrics: Metrics, policy: Policy, archive: Archive | None = None) -> None:
        super().__init__(metrics, pause_seconds=PRUNE_SECONDS)
        self._store = store
        self._policy = policy
        self._archive = archive
        self._archive_trouble = ""
        self._failing_since: float | None = None

    async def run_once(self) -> bool:
        """Prune one batch; True when there may be more."""
        pruned = await self._store.prune(self._policy, PRUNE_ROWS, self._archive)
        counts = {kind: count for kind, count in pruned.counts.items() if count}
        if counts:
            self._log.info("Pruned what was kept long enough", **counts)
        self._note_archive(pruned.trouble)
        return pruned.more

    async def rest(self) -> None:
        """Wait for an hour, or for a minute while something is in the way of the archive."""
        await asyncio.sleep(ARCHIVE_RETRY_SECONDS if self._archive_trouble else self.pause_seconds)

    def _note_archive(self, trouble: str) -> None:
        if trouble:
            self.metrics.archive_failures_total.inc()
            self._failing_since = self._failing_since or time.monotonic()
        else:
            self._failing_since = None
        if trouble and trouble != self._archive_trouble:
            self._log.warning("Nothing is forgotten that the archive has to take first", trouble=trouble)
        elif self._archive_trouble and not trouble:
            self._log.info("What the archive held up is forgotten again")
        self._archive_trouble = trouble
        failing = self._failing_since
        self.metrics.archive_failing_seconds.labels(role=self.title).set(
            0.0 if failing is None else time.monotonic() - failing
        )
