"""Listens to an event loop: how late it was lately, and whether it still turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from taskplatform.telemetry import Metrics

BEAT_SECONDS = 0.25
REMEMBERED_SECONDS = 15.0
"""How long a late beat is shown: one interval of Prometheus."""
FAINT_SECONDS = 5.0
"""A loop whose last beat was this late does its work too slowly to be called alive."""


class Pulse:
    """Measures by a timer that fires every BEAT_SECONDS; it does no input or output."""

    def __init__(self, metrics: Metrics) -> None:
        self._beats: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        metrics.event_loop_lag_seconds.set_function(lambda: self.lag_seconds)

    @property
    def lag_seconds(self) -> float:
        """The longest delay of the last REMEMBERED_SECONDS."""
        return max(late for _, late in self._beats)

    @property
    def faint(self) -> bool:
        """Whether the last beat was FAINT_SECONDS late or more."""
        return self._beats[-1][1] >= FAINT_SECONDS

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Measure the running loop while the context lasts."""
        loop = asyncio.get_running_loop()
        handle: asyncio.TimerHandle

        def beat(due: float) -> None:
            nonlocal handle
            now = loop.time()
            self.note(now, max(now - due, 0.0))
            handle = loop.call_later(BEAT_SECONDS, beat, now + BEAT_SECONDS)

        handle = loop.call_later(BEAT_SECONDS, beat, loop.time() + BEAT_SECONDS)
        try:
            yield
        finally:
            handle.cancel()

    def note(self, now: float, late: float) -> None:
        """Take in a beat: the loop's time, and how many seconds late it came."""
        self._beats.append((now, late))
        while len(self._beats) > 1 and self._beats[0][0] < now - REMEMBERED_SECONDS:
            self._beats.popleft()
