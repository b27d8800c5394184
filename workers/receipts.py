"""How deliveries are settled with the broker: each once, when the last of its jobs is over."""

from __future__ import annotations

from typing import Any, Protocol

from workers.acks import Acks
from workers.held import Settlement, Tag
from workers.tally import Tally


class Receipts(Protocol):
    """The deliveries of one channel."""

    @property
    def deliveries(self) -> int:
        """How many deliveries are not settled yet."""

    def received(self, tag: Tag, jobs: int = 1) -> None:
        """Note a delivery, and how many jobs it brought."""

    def settle(self, over: Settlement) -> None:
        """Take in whose jobs are over: dead-letter at once what is rejected, note what may be acknowledged."""

    def flush(self) -> None:
        """Acknowledge what was noted."""


class AmqpReceipts:
    """Settles deliveries on one AMQP channel, many with one frame."""

    def __init__(self, channel: Any) -> None:
        self._tally = Tally()
        self._channel = channel
        self._acks = Acks()

    @property
    def deliveries(self) -> int:
        """See Receipts."""
        return len(self._acks)

    def received(self, tag: Tag, jobs: int = 1) -> None:
        """See Receipts."""
        self._acks.received(int(tag))
        if jobs > 1:
            self._tally.received(tag, jobs)

    def settle(self, over: Settlement) -> None:
        """See Receipts."""
        whole = self._tally.settle(over)
        for tag in whole.ack:
            self._acks.settle(int(tag))
        for tag in whole.reject:
            self._acks.rejected(int(tag))
            self._channel.basic_reject(int(tag), requeue=False)

    def flush(self) -> None:
        """See Receipts."""
        settled = self._acks.take()
        if settled.up_to is not None:
            self._channel.basic_ack(settled.up_to, multiple=True)
        for tag in settled.singles:
            self._channel.basic_ack(tag)


class RedisReceipts:
    """Settles deliveries on a channel of kombu's Redis transport."""

    def __init__(self, channel: Any) -> None:
        self._tally = Tally()
        self._channel = channel
        self._open: set[Tag] = set()
        self._done: list[Tag] = []

    @property
    def deliveries(self) -> int:
        """See Receipts."""
        return len(self._open)

    def received(self, tag: Tag, jobs: int = 1) -> None:
        """See Receipts."""
        self._open.add(tag)
        if jobs > 1:
            self._tally.received(tag, jobs)

    def settle(self, over: Settlement) -> None:
        """See Receipts."""
        whole = self._tally.settle(over)
        self._open.difference_update(whole.ack, whole.reject)
        self._done += whole.ack
        for tag in whole.reject:
            self._channel.basic_reject(tag, requeue=False)

    def flush(self) -> None:
        """See Receipts."""
        if self._done:
            self._channel.qos.ack_all(self._done)
            self._done = []
