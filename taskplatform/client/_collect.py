"""Brings single items that threads hand in close together into batches."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from threading import Condition, Lock, Thread, main_thread
from types import TracebackType
from typing import Generic, TypeVar

from taskplatform.errors import TaskplatformError

Item = TypeVar("Item")
Result = TypeVar("Result")

_FLUSHES_AT_ONCE = 4
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    due: float
    done: Future[Result]


class Collect(Generic[Item, Result]):
    """What Gather is to tasks, for threads: hands items to `flush` in batches of at most `batch_size`.

    A batch is sent `window_seconds` after its first item came, or when it is full. While all flushes are under way,
    items wait and the next batch grows. Each thread has one item here at most, so no more wait than there are threads.
    What `flush` raises reaches everyone in that batch. Its own threads live until `close`; raises RuntimeError when
    they cannot be started. Once the main thread has ended, no window lasts longer than a second.
    """

    def __init__(
        self,
        flush: Callable[[list[Item]], list[Result]],
        *,
        window_seconds: float,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flush = flush
        self._window_seconds = window_seconds
        self._batch_size = batch_size
        self._clock = clock
        self._waiting: list[_Waiting[Item, Result]] = []
        self._changed = Condition()
        self._turn = Lock()
        self._closed = False
        self._process = os.getpid()
        self._threads: list[Thread] = []
        # All of them now: once the interpreter is about to exit, none can be started.
        with ExitStack() as halfway:
            halfway.callback(self.close)
            for number in range(_FLUSHES_AT_ONCE):
                thread = Thread(target=self._work, name=f"taskplatform-batch-{number}", daemon=True)
                thread.start()
                self._threads.append(thread)
            halfway.pop_all()

    @property
    def waiting(self) -> int:
        """How many items are here and not under way yet."""
        return len(self._waiting)

    def put(self, item: Item) -> Result:
        """Give the item's result.

        Raises TaskplatformError after `close`, in a fork of the process that made this, and while Python goes down.
        """
        if not self._has_threads():
            raise TaskplatformError(
                "the threads of this batching block are gone: it was opened before a fork, or Python exits"
            )
        done: Future[Result] = Future()
        with self._changed:
            if self._closed:
                raise TaskplatformError("this batching block has ended")
            self._waiting.append(_Waiting(item=item, due=self._clock() + self._window_seconds, done=done))
            if len(self._waiting) in (1, self._batch_size):
                self._changed.notify()
        return done.result()

    def close(self) -> None:
        """Flush what waits, and return when every flush has ended; at once where the threads are not."""
        # A lock that one of them held at that moment would never be free.
        if not self._has_threads():
            return
        with self._changed:
            self._closed = True
            self._changed.notify()
        for thread in self._threads:
            thread.join()

    def _has_threads(self) -> bool:
        return os.getpid() == self._process and not sys.is_finalizing()

    def _work(self) -> None:
        while batch := self._next():
            with ExitStack() as failing:
                failing.push(partial(_fail, [one.done for one in batch]))
                answers = self._flush([one.item for one in batch])
                for one, answer in zip(batch, answers, strict=True):
                    one.done.set_result(answer)

    def _next(self) -> list[_Waiting[Item, Result]]:
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            while (left := self._left_seconds()) > 0:
                self._changed.wait(min(left, _LOOK_SECONDS))
                # Its end is the interpreter's wish to exit, which waits for the callers' threads.
                if not main_thread().is_alive():
                    break
            batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
            return batch

    def _left_seconds(self) -> float:
        if self._closed or len(self._waiting) >= self._batch_size:
            return 0.0
        return self._waiting[0].due - self._clock()


def _fail(
    callers: list[Future[Result]],
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _trace: TracebackType | None,
) -> bool:
    for caller in callers:
        if error is not None and not caller.done():
            caller.set_exception(error)
    # Whatever it was: the thread outlives it.
    return True
