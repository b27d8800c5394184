"""Brings single items that arrive close together into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_FLUSHES_AT_ONCE = 4


class Gather(Generic[Item, Result]):
    """Hands items to `flush` in batches of at most `batch_size`, each at the latest `window_seconds` after it came.

    While all flushes are under way, items wait and the next batch grows. Whoever stops waiting for an item does not
    take it back. What `flush` raises reaches everyone in that batch.
    """

    def __init__(
        self, flush: Callable[[list[Item]], Awaitable[list[Result]]], *, window_seconds: float, batch_size: int
    ) -> None:
        self._flush = flush
        self._window_seconds = window_seconds
        self._batch_size = batch_size
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._flushes: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_FLUSHES_AT_ONCE)

    async def put(self, item: Item) -> Result:
        """Give the item's result."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, done))
        if len(self._waiting) == self._batch_size:
            self._start()
        elif self._timer is None:
            self._timer = loop.call_later(self._window_seconds, self._start)
        return await done

    async def close(self) -> None:
        """Flush what waits, and return when every flush has ended."""
        self._start()
        await asyncio.gather(*self._flushes)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task = asyncio.get_running_loop().create_task(self._empty())
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _empty(self) -> None:
        async with self._room:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
                await self._settle(batch)

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        [answer] = await asyncio.gather(self._flush([item for item, _ in batch]), return_exceptions=True)
        for position, (_, done) in enumerate(batch):
            if done.done():
                continue
            if isinstance(answer, BaseException):
                done.set_exception(answer)
            else:
                done.set_result(answer[position])
