"""The end of this process: it tells its callers to go elsewhere, serves them for a while yet, and only then stops."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

_Handler = Callable[[int, FrameType | None], object]


def on_stop(leave: Callable[[], None], drain_seconds: float) -> None:
    """When a signal asks the process to stop, call `leave` in the running event loop, and let the server stop later.

    The server hears of the signal after `drain_seconds`, or with the next signal if that comes before. Signals belong
    to the main thread: in any other, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    farewell = _Farewell(asyncio.get_running_loop(), leave, drain_seconds)
    for number in (signal.SIGINT, signal.SIGTERM):
        stop = signal.getsignal(number)
        if callable(stop):
            farewell.precede(number, stop)


class _Farewell:
    def __init__(self, loop: asyncio.AbstractEventLoop, leave: Callable[[], None], drain_seconds: float) -> None:
        self._loop = loop
        self._leave = leave
        self._wait_seconds = drain_seconds
        self._stop: asyncio.TimerHandle | None = None

    def precede(self, number: signal.Signals, stop: _Handler) -> None:
        signal.signal(number, lambda received, _: self._loop.call_soon_threadsafe(self._begin, stop, received))

    def _begin(self, stop: _Handler, received: int) -> None:
        self._leave()
        if self._stop is not None:
            self._stop.cancel()
        self._stop = self._loop.call_later(self._wait_seconds, stop, received, None)
        # Whoever asks again does not want to wait.
        self._wait_seconds = 0.0
