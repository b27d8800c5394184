"""One AMQP connection on the event loop: handshake, heartbeats, frames in and out, calls on channels."""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from taskplatform.broker.rabbitmq import frames
from taskplatform.broker.rabbitmq.address import Address
from taskplatform.broker.rabbitmq.frames import Incoming, Kind, Method
from taskplatform.broker.rabbitmq.table import Reader
from taskplatform.errors import BrokerUnavailable

_HEARTBEAT_SECONDS = 10
_FRAME_LIMIT = 131_072
_CHANNEL_LIMIT = 2047
_WRITE_BUFFER_BYTES = 1_048_576
_GOODBYE_SECONDS = 1.0
_CAPABILITIES = {
    "publisher_confirms": True,
    "basic.nack": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class ConnectionLost(BrokerUnavailable):
    """The connection ended before the broker answered."""


class ChannelClosed(BrokerUnavailable):
    """The broker closed the channel; `code` says why (404: no such queue, 406: declared otherwise)."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code} {detail}")
        self.code = code


@dataclass(slots=True)
class Channel:
    """One channel's side of a connection; `on_message` is given what answers no call."""

    number: int
    on_message: Callable[[Incoming], None] | None = None
    closed: ChannelClosed | None = None
    calls: deque[asyncio.Future[Incoming]] = field(default_factory=deque)
    partial: Incoming | None = None
    body: bytearray = field(default_factory=bytearray)
    body_size: int = 0


class Connection(asyncio.Protocol):
    """A connection that is open from `connect` on until `closed` is set; `lost` then says why."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.closed = asyncio.Event()
        self.lost: ConnectionLost | None = None
        self.frame_limit = _FRAME_LIMIT
        self.blocked = False
        self.on_change: Callable[[], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._channels = {0: Channel(0)}
        self._free_channels: list[int] = []
        self._rest = b""
        self._outgoing: list[bytes] = []
        self._heartbeat_seconds = 0
        self._silent_beats = 0
        self._quiet = True
        self._timer: asyncio.TimerHandle | None = None

    @property
    def clear(self) -> bool:
        """Whether more may be written now: the broker takes messages, and the socket takes bytes."""
        return not (self.blocked or self._paused)

    async def open(self, purpose: str) -> None:
        """Shake hands. Raises ConnectionLost, and ValueError when the peer speaks no AMQP."""
        address = self.address
        client = {
            "product": "taskplatform",
            "connection_name": f"taskplatform {purpose} {os.getpid()}",
            "capabilities": _CAPABILITIES,
        }
        await self.call(0, frames.PROTOCOL_HEADER)
        tune = await self.call(0, frames.start_ok(address.user, address.password, client))
        if tune.method != Method.CONNECTION_TUNE:
            raise ValueError("the broker asks for another login than name and password")
        channels, frame_limit, heartbeat = struct.unpack_from(">HIH", tune.arguments)
        self.frame_limit = min(frame_limit or _FRAME_LIMIT, _FRAME_LIMIT)
        self._free_channels = list(range(min(channels or _CHANNEL_LIMIT, _CHANNEL_LIMIT), 0, -1))
        self._heartbeat_seconds = min(heartbeat or _HEARTBEAT_SECONDS, _HEARTBEAT_SECONDS)
        self.write(frames.tune_ok(len(self._free_channels), self.frame_limit, self._heartbeat_seconds))
        await self.call(0, frames.connection_open(address.vhost))
        self._beat()

    async def open_channel(self, on_message: Callable[[Incoming], None] | None = None) -> Channel:
        """Open a channel. Raises ConnectionLost, ChannelClosed."""
        if not self._free_channels:
            raise ChannelClosed(504, "no channel is left on this connection")
        channel = Channel(self._free_channels.pop(), on_message)
        self._channels[channel.number] = channel
        await self.call(channel.number, frames.method(channel.number, Method.CHANNEL_OPEN, b"\0"))
        return channel

    def call(self, number: int, request: bytes) -> asyncio.Future[Incoming]:
        """Write a request and give the answer to come; calls on one channel are answered in order.

        The answer may be ConnectionLost or ChannelClosed.
        """
        answer = asyncio.get_running_loop().create_future()
        channel = self._channels.get(number)
        if self.lost:
            answer.set_exception(self.lost)
        elif channel is None:
            answer.set_exception(ChannelClosed(504, "the channel is closed"))
        else:
            channel.calls.append(answer)
            self.write(request)
        return answer

    def write(self, data: bytes) -> None:
        """Send at the end of this turn of the loop, together with whatever else is written in it."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(data)

    def abort(self, reason: str) -> None:
        """Drop the connection now. May be called again."""
        self._end(reason)
        if self._transport:
            self._transport.abort()

    async def close(self) -> None:
        """Say goodbye, wait a moment for the answer, and drop the connection. May be called again."""
        if self.lost is None:
            try:
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await self.call(0, frames.connection_close())
            except (TimeoutError, ConnectionLost):
                pass
        self.abort("closed by us")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end(str(exc) if exc else "the broker closed the connection")

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused = False
        self._changed()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._silent_beats = 0
        try:
            self._split(self._rest + data if self._rest else data)
        except (ValueError, IndexError, struct.error) as error:
            self.abort(f"the broker sent what is no AMQP: {error}")

    def _split(self, data: bytes) -> None:
        position, end = 0, len(data)
        if data.startswith(b"AMQP"):
            raise ValueError(f"it wants protocol {tuple(data[4:8])}")
        while end - position >= frames.FRAME_OVERHEAD:
            kind, number, size = frames.FRAME_HEAD.unpack_from(data, position)
            last = position + 7 + size
            if size > _FRAME_LIMIT:
                raise ValueError(f"a frame of {size} bytes")
            if last >= end:
                break
            if data[last] != frames.FRAME_END:
                raise ValueError("a frame without an end")
            self._on_frame(kind, number, data[position + 7 : last])
            position = last + 1
        self._rest = data[position:]

    def _on_frame(self, kind: int, number: int, payload: bytes) -> None:
        channel = self._channels.get(number)
        if channel is None or kind == Kind.HEARTBEAT:
            return
        if kind == Kind.METHOD:
            message = Incoming(int.from_bytes(payload[:4], "big"), payload[4:])
            if message.method in frames.CARRIES_CONTENT:
                channel.partial = message
            else:
                self._on_method(channel, message)
            return
        if channel.partial is None:
            raise ValueError("content that belongs to nothing")
        if kind == Kind.HEADER:
            channel.partial = Incoming(channel.partial.method, channel.partial.arguments, payload)
            channel.body_size = int.from_bytes(payload[4:12], "big")
        else:
            channel.body += payload
        if len(channel.body) >= channel.body_size:
            whole = channel.partial
            message = Incoming(whole.method, whole.arguments, whole.header, bytes(channel.body))
            channel.partial = None
            channel.body.clear()
            self._on_method(channel, message)

    def _on_method(self, channel: Channel, message: Incoming) -> None:
        match message.method:
            case Method.BASIC_ACK | Method.BASIC_NACK | Method.BASIC_RETURN | Method.CHANNEL_FLOW:
                if channel.on_message:
                    channel.on_message(message)
            case Method.CHANNEL_CLOSE:
                self._close_channel(channel, message)
            case Method.CONNECTION_CLOSE:
                code, detail = _reason(message)
                self.write(frames.method(0, Method.CONNECTION_CLOSE_OK))
                self._flush()
                self.abort(f"the broker closed the connection: {code} {detail}")
            case Method.CONNECTION_BLOCKED | Method.CONNECTION_UNBLOCKED:
                self.blocked = message.method == Method.CONNECTION_BLOCKED
                self._changed()
            case _:
                _answer(channel, message)

    def _close_channel(self, channel: Channel, message: Incoming) -> None:
        channel.closed = ChannelClosed(*_reason(message))
        self.write(frames.method(channel.number, Method.CHANNEL_CLOSE_OK))
        del self._channels[channel.number]
        self._free_channels.append(channel.number)
        for call in channel.calls:
            if not call.done():
                call.set_exception(channel.closed)
        if channel.on_message:
            channel.on_message(message)

    def _flush(self) -> None:
        if self._outgoing and self._transport and not self._transport.is_closing():
            self._quiet = False
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _beat(self) -> None:
        # A beat is half a heartbeat interval: what our own loop slept through is not the broker's silence.
        self._silent_beats += 1
        if self._silent_beats > 4:
            self.abort(f"the broker was silent for {2 * self._heartbeat_seconds} s")
            return
        if self._quiet:
            self.write(frames.HEARTBEAT)
            self._flush()
        self._quiet = True
        self._timer = asyncio.get_running_loop().call_later(self._heartbeat_seconds / 2, self._beat)

    def _changed(self) -> None:
        if self.on_change:
            self.on_change()

    def _end(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = ConnectionLost(f"{self.address}: {reason}")
        if self._timer:
            self._timer.cancel()
        for channel in self._channels.values():
            for call in channel.calls:
                if not call.done():
                    call.set_exception(self.lost)
        self.closed.set()
        self._changed()


async def connect(address: Address, purpose: str, timeout_seconds: float) -> Connection:
    """Connect and shake hands. Raises BrokerUnavailable that says what went wrong, never the password."""
    loop = asyncio.get_running_loop()
    tls = ssl.create_default_context() if address.tls else None
    connection = Connection(address)
    try:
        async with asyncio.timeout(timeout_seconds):
            await loop.create_connection(lambda: connection, address.host, address.port, ssl=tls)
            await connection.open(purpose)
    except TimeoutError:
        connection.abort("no answer")
        raise BrokerUnavailable(f"{address}: no answer within {timeout_seconds:g} s") from None
    except (OSError, ValueError, struct.error) as error:
        connection.abort("no handshake")
        raise BrokerUnavailable(f"{address}: {error}") from None
    except BaseException:
        connection.abort("given up")
        raise
    return connection


def _answer(channel: Channel, message: Incoming) -> None:
    if not channel.calls:
        raise ValueError(f"an answer that nobody asked for: {message.method:#010x}")
    call = channel.calls.popleft()
    if not call.done():
        call.set_result(message)


def _reason(message: Incoming) -> tuple[int, str]:
    reader = Reader(message.arguments)
    return reader.number(2), reader.short_string()
