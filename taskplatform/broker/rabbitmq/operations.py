"""Declares, counts and takes dead letters on a connection of its own, which no alarm for publishers holds up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

from taskplatform.broker.contract import DeadMessage
from taskplatform.broker.dead import first_death
from taskplatform.broker.rabbitmq import frames
from taskplatform.broker.rabbitmq.address import Address
from taskplatform.broker.rabbitmq.connection import Channel, ChannelClosed, Connection, connect
from taskplatform.broker.rabbitmq.frames import Incoming, Method
from taskplatform.broker.rabbitmq.table import Reader, read_properties
from taskplatform.errors import BrokerUnavailable
from taskplatform.topology import queues as topology_queues

_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    message: DeadMessage
    channel: Channel
    delivery_tag: int


class Operations:
    """Everything but publishing. It connects when it is first needed, and again after a loss."""

    def __init__(self, addresses: Sequence[Address], timeout_seconds: float) -> None:
        self._addresses = list(addresses)
        self._timeout_seconds = timeout_seconds
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._channel: Channel | None = None
        self._dead_channels: dict[str, Channel] = {}
        self._taken: dict[int, _Taken] = {}
        self._tags = count(1)

    async def declare(self, pools: Collection[str]) -> None:
        """See Broker.declare."""
        async with self._exclusively() as connection:
            for queue in topology_queues(pools):
                channel = await self._plain_channel(connection)
                await connection.call(channel.number, frames.queue_declare(channel.number, queue.name, queue.arguments))

    async def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """See Broker.depths."""
        depths: dict[str, int] = {}
        async with self._exclusively() as connection:
            for queue in queues:
                channel = await self._plain_channel(connection)
                try:
                    answer = await connection.call(channel.number, frames.queue_declare(channel.number, queue, None))
                except ChannelClosed as closed:
                    if closed.code != _NOT_FOUND:
                        raise
                    continue
                reader = Reader(answer.arguments)
                reader.short_string()
                depths[queue] = reader.number(4)
        return depths

    async def take_dead(self, queue: str, limit: int) -> list[DeadMessage]:
        """See Broker.take_dead."""
        async with self._exclusively() as connection:
            self._forget_lost()
            again = [taken.message for taken in self._taken.values() if taken.message.queue == queue][:limit]
            if len(again) == limit:
                return again
            channel = self._dead_channels.get(queue)
            if channel is None or channel.closed:
                channel = self._dead_channels[queue] = await connection.open_channel()
            request = frames.basic_get(channel.number, queue)
            # The first answer tells how many more there are, so an empty queue costs one question.
            first = await connection.call(channel.number, request)
            more = min(limit - len(again) - 1, _waiting_behind(first))
            answers = [first, *await asyncio.gather(*(connection.call(channel.number, request) for _ in range(more)))]
            return again + [self._take(queue, channel, each) for each in answers if each.method == Method.BASIC_GET_OK]

    async def settle_dead(self, messages: Sequence[DeadMessage]) -> None:
        """See Broker.settle_dead."""
        async with self._exclusively() as connection:
            self._forget_lost()
            for message in messages:
                taken = self._taken.pop(message.tag, None)
                if taken:
                    connection.write(frames.basic_ack(taken.channel.number, taken.delivery_tag))

    async def stop(self) -> None:
        """Say goodbye; what was taken and not settled comes again."""
        if self._connection:
            await self._connection.close()
            self._connection = None

    @asynccontextmanager
    async def _exclusively(self) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(self._timeout_seconds), self._turn:
                yield await self._connected()
        except TimeoutError:
            if self._connection:
                self._connection.abort("no answer in time")
            raise BrokerUnavailable(f"the broker did not answer within {self._timeout_seconds:g} s") from None

    async def _connected(self) -> Connection:
        if self._connection and not self._connection.lost:
            return self._connection
        self._channel = None
        self._dead_channels.clear()
        self._taken.clear()
        for _ in self._addresses:
            try:
                self._connection = await connect(self._addresses[0], "operations", self._timeout_seconds)
            except BrokerUnavailable as error:
                failure = error
                self._addresses.append(self._addresses.pop(0))
            else:
                return self._connection
        raise failure

    async def _plain_channel(self, connection: Connection) -> Channel:
        if self._channel is None or self._channel.closed:
            self._channel = await connection.open_channel()
        return self._channel

    def _forget_lost(self) -> None:
        for tag in [tag for tag, taken in self._taken.items() if taken.channel.closed]:
            del self._taken[tag]

    def _take(self, queue: str, channel: Channel, answer: Incoming) -> DeadMessage:
        try:
            properties = read_properties(answer.header)
        except ValueError:
            # What nobody can read is the last thing that may block the way out of this queue.
            properties = {}
        headers = properties.pop("headers", {})
        reason, source = first_death(headers)
        message = DeadMessage(
            tag=next(self._tags),
            queue=queue,
            source_queue=source or queue,
            reason=reason,
            headers=headers,
            properties=properties,
            body=answer.body,
        )
        delivery_tag = Reader(answer.arguments).number(8)
        self._taken[message.tag] = _Taken(message=message, channel=channel, delivery_tag=delivery_tag)
        return message


def _waiting_behind(answer: Incoming) -> int:
    if answer.method != Method.BASIC_GET_OK:
        return 0
    reader = Reader(answer.arguments)
    reader.take(9)
    reader.short_string()
    reader.short_string()
    return reader.number(4)
