"""The end of this process: it tells its callers to go elsewhere, serves them for a while yet, and only then stops."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

ECHO_SECONDS = 1.0
"""Signals that come together are one: a whole group gets one at once, and its parent hands it on within 0.5 s."""
_Handler = Callable[[int, FrameType | None], object]
_Clock = Callable[[], float]


def on_stop(leave: Callable[[], None], drain_seconds: float, clock: _Clock = time.monotonic) -> None:
    """When a signal asks the process to stop, call `leave` in the running event loop, and let the server stop later.

    The server hears of the signal after `drain_seconds`, or with the next signal if that comes before, but not within
    ECHO_SECONDS of the first. Signals belong to the main thread: in any other, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    farewell = _Farewell(asyncio.get_running_loop(), leave, drain_seconds, clock)
    for number in (signal.SIGINT, signal.SIGTERM):
        stop = signal.getsignal(number)
        if callable(stop):
            farewell.precede(number, stop)


class _Farewell:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, leave: Callable[[], None], drain_seconds: float, clock: _Clock
    ) -> None:
        self._loop = loop
        self._leave = leave
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._began: float | None = None
        self._stop: asyncio.TimerHandle | None = None

    def precede(self, number: signal.Signals, stop: _Handler) -> None:
        signal.signal(
            number, lambda received, _: self._loop.call_soon_threadsafe(self._hear, stop, received, self._clock())
        )

    def _hear(self, stop: _Handler, received: int, at: float) -> None:
        if self._began is None:
            self._began = at
            self._leave()
            self._stop = self._loop.call_later(self._drain_seconds, stop, received, None)
        elif at - self._began >= ECHO_SECONDS:
            # Whoever asks again does not want to wait.
            if self._stop is not None:
                self._stop.cancel()
            self._stop = self._loop.call_later(0.0, stop, received, None)
