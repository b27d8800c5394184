"""Which delivery tags one acknowledgement may cover: pure bookkeeping for one channel."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What may be acknowledged now: everything up to `up_to` in one frame, and single tags above it."""

    up_to: int | None
    singles: tuple[int, ...]


class Acks:
    """The unacknowledged deliveries of one channel, in the order of their tags."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._done: set[int] = set()
        self._gone: set[int] = set()

    def __len__(self) -> int:
        """Tell how many deliveries are not settled yet."""
        return len(self._order) - len(self._done) - len(self._gone)

    def received(self, tag: int) -> None:
        """Note a delivery; tags of a channel only rise."""
        self._order.append(tag)

    def settle(self, tag: int) -> None:
        """Note that the delivery may be acknowledged; call it once for each."""
        self._done.add(tag)

    def rejected(self, tag: int) -> None:
        """Note that the delivery was rejected, so that it is never acknowledged."""
        self._gone.add(tag)

    def take(self) -> Settled:
        """Give what may be acknowledged and forget it.

        `up_to` is always a tag that was not settled before: RabbitMQ closes the channel over an unknown one.
        """
        up_to = None
        order, done, gone = self._order, self._done, self._gone
        while order:
            tag = order[0]
            if tag in done:
                up_to = tag
                done.remove(tag)
            elif tag in gone:
                gone.remove(tag)
            else:
                break
            order.popleft()
        singles = tuple(sorted(done))
        gone.update(singles)
        done.clear()
        return Settled(up_to=up_to, singles=singles)
