"""Brings single items that threads hand in close together into batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import BoundedSemaphore, Condition, Thread
from typing import Generic, TypeVar

from taskplatform.errors import TaskplatformError

Item = TypeVar("Item")
Result = TypeVar("Result")

_FLUSHES_AT_ONCE = 4


class Collect(Generic[Item, Result]):
    """What Gather is to tasks, for threads: hands items to `flush` in batches of at most `batch_size`.

    A batch is sent `window_seconds` after its first item came, or when it is full. While all flushes are under way,
    items wait and the next batch grows. Each thread has one item here at most, so no more wait than there are threads.
    What `flush` raises reaches everyone in that batch. Its own threads live until `close`.
    """

    def __init__(self, flush: Callable[[list[Item]], list[Result]], *, window_seconds: float, batch_size: int) -> None:
        self._flush = flush
        self._window_seconds = window_seconds
        self._batch_size = batch_size
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._changed = Condition()
        self._closed = False
        self._room = BoundedSemaphore(_FLUSHES_AT_ONCE)
        self._senders = ThreadPoolExecutor(_FLUSHES_AT_ONCE, thread_name_prefix="taskplatform-batch")
        self._collector = Thread(target=self._work, name="taskplatform-batching", daemon=True)
        self._collector.start()

    @property
    def waiting(self) -> int:
        """How many items are here and not under way yet."""
        with self._changed:
            return len(self._waiting)

    def put(self, item: Item) -> Result:
        """Give the item's result. Raises TaskplatformError after `close`."""
        done: Future[Result] = Future()
        with self._changed:
            if self._closed:
                raise TaskplatformError("this batching block has ended")
            self._waiting.append((item, done))
            if len(self._waiting) in (1, self._batch_size):
                self._changed.notify()
        return done.result()

    def close(self) -> None:
        """Flush what waits, and return when every flush has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._collector.join()
        self._senders.shutdown()

    def _work(self) -> None:
        while True:
            self._room.acquire()
            batch = self._next()
            if not batch:
                return
            flushed = self._senders.submit(self._flush, [item for item, _ in batch])
            flushed.add_done_callback(partial(self._settle, [done for _, done in batch]))

    def _next(self) -> list[tuple[Item, Future[Result]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: len(self._waiting) >= self._batch_size or self._closed, self._window_seconds)
            batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
            return batch

    def _settle(self, callers: Sequence[Future[Result]], flushed: Future[list[Result]]) -> None:
        self._room.release()
        error = flushed.exception()
        for position, caller in enumerate(callers):
            if error is not None:
                caller.set_exception(error)
            else:
                caller.set_result(flushed.result()[position])
