"""Publishes on one connection with many messages in flight, and says which the broker took."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Self

from taskplatform.broker.rabbitmq import frames
from taskplatform.broker.rabbitmq.confirms import Batch, Confirms
from taskplatform.broker.rabbitmq.connection import Channel, Connection, ConnectionLost
from taskplatform.broker.rabbitmq.frames import Incoming, Method
from taskplatform.broker.rabbitmq.table import Reader, read_properties
from taskplatform.payload import Message

_IN_FLIGHT = 4096
_AT_ONCE = 128
_AT_ONCE_BYTES = 1_048_576
_ONLY_WHILE_FLOWING = b"\x01"

logger = logging.getLogger(__name__)


class Publisher:
    """The confirm channel of a connection; publish calls take turns in the order in which they came."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._confirms = Confirms()
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._flowing = True
        self._channel = Channel(0)
        connection.on_change = self._connection_changed

    @classmethod
    async def on(cls, connection: Connection) -> Self:
        """Open the confirm channel of a new connection. Raises ConnectionLost, ChannelClosed."""
        publisher = cls(connection)
        publisher._channel = channel = await connection.open_channel(publisher._on_message)
        await connection.call(channel.number, frames.method(channel.number, Method.CONFIRM_SELECT, b"\0"))
        return publisher

    async def publish(self, messages: Sequence[Message], timeout_seconds: float) -> set[str]:
        """Publish, and give the ids that were confirmed within the time or until the connection was lost."""
        batch = Batch(len(messages))
        settled_before = self._confirms.settlements
        try:
            async with asyncio.timeout(timeout_seconds):
                async with self._turn:
                    await self._send(batch, messages)
                await batch.done.wait()
        except ConnectionLost:
            pass
        except TimeoutError:
            if batch.first and settled_before == self._confirms.settlements and not self._held_up:
                self.connection.abort(f"no publish was confirmed within {timeout_seconds:g} s")
        finally:
            self._confirms.abandon(batch)
        return batch.confirmed

    @property
    def _held_up(self) -> bool:
        return self.connection.blocked or not self._flowing

    async def _send(self, batch: Batch, messages: Sequence[Message]) -> None:
        start = 0
        while start < len(messages):
            if start:
                # Encoding takes time that other requests of this process want too.
                await asyncio.sleep(0)
            await self._room()
            end = _end_of_piece(messages, start)
            self._write(batch, messages[start:end])
            start = end

    async def _room(self) -> None:
        while True:
            if self.connection.lost:
                raise self.connection.lost
            if self.connection.clear and self._flowing and len(self._confirms) <= _IN_FLIGHT - _AT_ONCE:
                return
            self._wake.clear()
            await self._wake.wait()

    def _write(self, batch: Batch, messages: Sequence[Message]) -> None:
        number, frame_limit = self._channel.number, self.connection.frame_limit
        written = []
        data = []
        for message in messages:
            try:
                data.append(frames.publish(number, message, frame_limit))
            except ValueError as error:
                logger.warning("A message cannot be published: %s", error, extra={"job_id": message.id})
                continue
            written.append(message)
        self._confirms.track(batch, written)
        if data:
            self.connection.write(b"".join(data))
        batch.drop(len(messages) - len(written))

    def _on_message(self, message: Incoming) -> None:
        match message.method:
            case Method.BASIC_ACK | Method.BASIC_NACK:
                tag = int.from_bytes(message.arguments[:8], "big")
                multiple = bool(message.arguments[8] & 1)
                self._confirms.settle(tag, multiple=multiple, taken=message.method == Method.BASIC_ACK)
            case Method.BASIC_RETURN:
                self._returned(message)
            case Method.CHANNEL_FLOW:
                self._flowing = message.arguments[:1] == _ONLY_WHILE_FLOWING
                number = self._channel.number
                self.connection.write(frames.method(number, Method.CHANNEL_FLOW_OK, message.arguments[:1]))
            case _:
                self.connection.abort(f"the broker closed the confirm channel: {self._channel.closed}")
        self._wake.set()

    def _returned(self, message: Incoming) -> None:
        reader = Reader(message.arguments)
        reader.number(2)
        why, _exchange, routing_key = (reader.short_string() for _ in range(3))
        message_id = str(read_properties(message.header).get("message_id"))
        self._confirms.returned(message_id, routing_key)
        logger.warning("No queue takes a message: %s (%s)", routing_key, why, extra={"job_id": message_id})

    def _connection_changed(self) -> None:
        if self.connection.lost:
            self._confirms.give_up()
        self._wake.set()


def _end_of_piece(messages: Sequence[Message], start: int) -> int:
    end, size = start, 0
    while end < len(messages) and end - start < _AT_ONCE and size < _AT_ONCE_BYTES:
        size += len(messages[end].body)
        end += 1
    return end
