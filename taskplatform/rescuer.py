"""Moves jobs of workers whose lease ran out from `running` to `retrying`, or to `dead` when they killed too often."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from taskplatform.job import Rescued, State
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.contract import DispatchStore
from taskplatform.telemetry import Metrics
from taskplatform.tracing import Fact, Step

RESCUE_SECONDS = 1.0
_RESCUED_TO = (State.RETRYING, State.DEAD)


class Rescuer(Role):
    """Takes back what vanished workers held; one round is one transaction."""

    name: ClassVar[str] = "rescuer"

    def __init__(self, store: DispatchStore, metrics: Metrics, settings: Settings) -> None:
        super().__init__(metrics, pause_seconds=RESCUE_SECONDS)
        self._store = store
        self._crash_limit = settings.crash_limit
        for state in _RESCUED_TO:
            # Shown as zero at first: Prometheus sees no increase in what was not there before.
            metrics.jobs_rescued_total.labels(state=state)

    async def run_once(self) -> bool:
        """Rescue what can be rescued now; True when something was."""
        began = time.time()
        rescued = await self._store.rescue(self._crash_limit)
        if not rescued:
            return False
        if self.metrics.tracer is not None:
            self.metrics.tracer.note_all(_taken_back(rescued, began))
        states = Counter(job.state for job in rescued)
        for state, count in states.items():
            self.metrics.jobs_rescued_total.labels(state=str(state)).inc(count)
        self._log.warning(
            "Took back jobs of vanished workers", **{str(state): count for state, count in states.items()}
        )
        return True


def _taken_back(rescued: Sequence[Rescued], began: float) -> Iterator[Step]:
    ended = time.time()
    for job in rescued:
        facts: dict[str, Fact] = {"batch.jobs": len(rescued), "job.state": job.state.value}
        yield Step(name="rescue", job=job, began=began, ended=ended, facts=facts, trouble="its worker vanished")
