"""Hears of the stop of this process before the server waits for the requests that are under way."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType


def on_stop(leave: Callable[[], None]) -> None:
    """Call `leave` in the running event loop when a signal asks the process to stop, beside what the server does then.

    Signals belong to the main thread: in any other, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        _chain(number, lambda: loop.call_soon_threadsafe(leave))


def _chain(number: signal.Signals, leave: Callable[[], object]) -> None:
    before = signal.getsignal(number)

    def handle(received: int, frame: FrameType | None) -> None:
        leave()
        if callable(before):
            before(received, frame)

    if callable(before):
        signal.signal(number, handle)
