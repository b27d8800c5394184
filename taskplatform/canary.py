"""Sends a job of the platform's own through every pool now and then, the way every job goes, and measures its trip."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

from taskplatform.errors import TaskplatformError
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.telemetry import Metrics


class Trip(StrEnum):
    """How the trip of a canary ended."""

    ARRIVED = "arrived"
    LATE = "late"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The trip of one canary; the seconds are None where it did not get so far."""

    trip: Trip
    accept_seconds: float | None = None
    start_seconds: float | None = None
    run_seconds: float | None = None
    total_seconds: float | None = None


class Send(Protocol):
    """Hands in one canary and waits for its end."""

    async def __call__(self, pool: str, within_seconds: float) -> Report:
        """Report the trip; it is late after `within_seconds`. Raises TaskplatformError when it was not taken."""


class Canary(Role):
    """Sends one canary through each pool every `canary_seconds`; the next goes when this one has come or is late."""

    name: ClassVar[str] = "canary"

    def __init__(self, send: Send, metrics: Metrics, settings: Settings) -> None:
        super().__init__(metrics, pause_seconds=settings.canary_seconds)
        self._send = send
        self._pools = settings.pools
        self._every_seconds = settings.canary_seconds
        self._began = float("-inf")
        for pool in self._pools:
            for trip in Trip:
                # Shown as zero at first: Prometheus sees no increase in what was not there before.
                metrics.canary_jobs_total.labels(pool=pool, outcome=trip)

    async def run_once(self) -> bool:
        """Send one through each pool, all at once."""
        self._began = time.monotonic()
        await asyncio.gather(*(self._try(pool) for pool in self._pools))
        return False

    async def rest(self) -> None:
        """Wait until the next ones are due."""
        await asyncio.sleep(max(self._began + self._every_seconds - time.monotonic(), 0.0))

    async def _try(self, pool: str) -> None:
        metrics = self.metrics
        try:
            report = await self._send(pool, self._every_seconds)
        except TaskplatformError as error:
            self._log.warning("A canary was not taken", pool=pool, trouble=str(error))
            report = Report(trip=Trip.REFUSED)
        if report.trip is Trip.ARRIVED:
            metrics.canary_last_arrival_timestamp_seconds.labels(pool=pool).set_to_current_time()
        metrics.canary_jobs_total.labels(pool=pool, outcome=report.trip).inc()
        for step, seconds in (
            *(("accept", report.accept_seconds), ("start", report.start_seconds)),
            *(("run", report.run_seconds), ("total", report.total_seconds)),
        ):
            if seconds is not None:
                metrics.canary_seconds.labels(pool=pool, step=step).observe(max(seconds, 0.0))
