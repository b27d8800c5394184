"""Threads that are made when they are needed, used again, and never waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Threads(Generic[T]):
    """Calls `work` with each item in a thread that has nothing else to do.

    The threads are daemons: one that hangs holds no process back.
    """

    def __init__(self, work: Callable[[T], None]) -> None:
        self._work = work
        self._items: SimpleQueue[T] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._made = 0

    def submit(self, item: T) -> None:
        """Have the item worked on at once."""
        self._items.put(item)
        if not self._idle.acquire(blocking=False):
            self._made += 1
            threading.Thread(target=self._run, name=f"job-{self._made}", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._work(self._items.get())
            self._idle.release()
