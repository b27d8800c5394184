"""Which messages of one channel are in flight, and what becomes of each; values in, values out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from taskplatform.payload import Message


class Batch:
    """The messages of one publish call; `done` is set when none of them is open any more."""

    __slots__ = ("confirmed", "done", "first", "last", "missing")

    def __init__(self, size: int) -> None:
        self.confirmed: set[str] = set()
        self.missing = size
        self.first = 0
        self.last = -1
        self.done = asyncio.Event()
        self.drop(0)

    def drop(self, count: int = 1) -> None:
        """Expect `count` messages less."""
        self.missing -= count
        if self.missing <= 0:
            self.done.set()


class Confirms:
    """Delivery tags in order. A tag is never used again, so a late confirm cannot count for another message."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Batch, Message]] = {}
        self._returned: Counter[tuple[str, str]] = Counter()
        self._last_tag = 0
        self._settled_up_to = 0
        self.settlements = 0

    def __len__(self) -> int:
        return len(self._open)

    def track(self, batch: Batch, messages: Iterable[Message]) -> None:
        """Give the next tags to messages that are written now. All messages of a batch have to be tracked in a row."""
        if not batch.first:
            batch.first = self._last_tag + 1
        for message in messages:
            self._last_tag += 1
            self._open[self._last_tag] = (batch, message)
        batch.last = self._last_tag

    def returned(self, message_id: str, routing_key: str) -> None:
        """Note that the broker sent a message back: its ack will follow, and means nothing."""
        self._returned[message_id, routing_key] += 1

    def settle(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Note that the broker answers for one message, or for all up to it; tag 0 with `multiple` means all."""
        self.settlements += 1
        if not multiple:
            self._close(tag, taken=taken)
            return
        last = min(tag or self._last_tag, self._last_tag)
        for each in range(self._settled_up_to + 1, last + 1):
            self._close(each, taken=taken)
        self._settled_up_to = max(self._settled_up_to, last)

    def abandon(self, batch: Batch) -> None:
        """Forget what nobody waits for any more, so that it takes no room."""
        if batch.missing > 0:
            for tag in range(batch.first, batch.last + 1):
                self._open.pop(tag, None)

    def give_up(self) -> None:
        """Let go of everything: the channel is gone."""
        for batch, _ in self._open.values():
            batch.done.set()
        self._open.clear()
        self._returned.clear()

    def _close(self, tag: int, *, taken: bool) -> None:
        entry = self._open.pop(tag, None)
        if entry is None:
            return
        batch, message = entry
        if taken and not (self._returned and self._was_returned(message)):
            batch.confirmed.add(message.id)
        batch.drop()

    def _was_returned(self, message: Message) -> bool:
        key = (message.id, message.routing_key)
        if not self._returned[key]:
            del self._returned[key]
            return False
        self._returned[key] -= 1
        if not self._returned[key]:
            del self._returned[key]
        return True
