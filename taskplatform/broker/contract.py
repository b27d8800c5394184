"""What the platform asks of its broker; a message is a hint, so doubled and late ones are harmless."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from taskplatform.payload import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMessage:
    """A message out of a dead-letter queue; `reason` is the broker's own word (rejected, delivery_limit, …) or None."""

    tag: int
    queue: str
    source_queue: str
    reason: str | None
    headers: dict[str, Any]
    properties: dict[str, Any]
    body: bytes


class Broker(Protocol):
    """The broker as services see it; safe to use from one event loop."""

    async def start(self) -> None:
        """Begin to connect in the background; returns at once, whether or not the broker is there."""

    async def stop(self) -> None:
        """Let go of the connection. What is not confirmed by then stays in the outbox."""

    @property
    def keeps_confirmed(self) -> bool:
        """Whether a confirmed message outlives the crash of the broker's machine, without a row in Postgres."""

    @property
    def connected(self) -> bool:
        """Whether the broker could be spoken to last."""

    async def publish(self, messages: Sequence[Message]) -> set[str]:
        """Publish persistent messages, all in flight at once, and give the ids that the broker confirmed.

        Returns within the publish timeout whatever the broker does: dead, frozen, under a memory alarm. A message that
        is unroutable, refused, or not confirmed in time is not in the answer; it may still arrive.
        """

    async def declare(self, pools: Collection[str]) -> None:
        """Declare every queue of the pools. May be called twice. Raises BrokerUnavailable."""

    async def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """Count the messages that wait in each queue; one that does not exist is left out. Raises BrokerUnavailable."""

    async def take_dead(self, queue: str, limit: int) -> list[DeadMessage]:
        """Take up to `limit` messages out of a dead-letter queue without acknowledging them.

        What was taken before and not settled is part of the answer again, with the tag that it had unless the
        connection has been lost since. Raises BrokerUnavailable.
        """

    async def settle_dead(self, messages: Sequence[DeadMessage]) -> None:
        """Acknowledge messages taken before; one whose connection is gone comes again. Raises BrokerUnavailable."""
