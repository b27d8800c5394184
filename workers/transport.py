"""kombu's AMQP transport for a consumer in a hurry: many frames per read, no body unpacked, none fatal."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from amqp import spec
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.method_framing import frame_handler
from amqp.serialization import decode_properties_basic, loads
from kombu.transport import pyamqp

from workers.deliveries import DELIVER, FRAME_END, FRAME_HEAD, FRAME_OVERHEAD, METHOD, Deliveries, Not
from workers.shapes import SIZES_BYTES

# The stubs know few of their attributes.
_PyamqpTransport: Any = pyamqp.Transport

_READ_BYTES = 131_072
_CONTENT_HEADER = 2
_NO_PROPERTIES = bytes(2)
_NO_ADDRESS = bytes(2)  # an empty exchange and an empty routing key


class AmqpMessage(pyamqp.Message):
    """A received message as it is: kombu would decompress one that asks for it, however large it becomes."""

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        headers = msg.properties.pop("application_headers", None) or {}
        super().__init__(msg, channel=channel, **options)
        self.headers = headers


class AmqpChannel(pyamqp.Channel):
    """A channel that hands out AmqpMessage."""

    Message = AmqpMessage


class AmqpConnection(pyamqp.Connection):
    """A connection that makes AmqpChannel; deliveries on the `quick_channel` are handled without waiting.

    Where `deliveries` are set, those of that channel that come whole and can be read do not get to py-amqp at all.

    RabbitMQ passes on properties that py-amqp cannot read, say text that is not UTF-8: such a message arrives without
    any, and is refused like every other that is not ours.
    """

    Channel = AmqpChannel
    quick_channel: int | None = None
    deliveries: Deliveries | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"frame_handler": _forgiving_frame_handler, **options})

    def on_inbound_method(self, channel_id: int, method_sig: tuple[int, int], payload: bytes, content: Any) -> Any:
        """Hand a whole method to its channel; a delivery whose address cannot be read has none."""
        try:
            return super().on_inbound_method(channel_id, method_sig, payload, content)
        except UnicodeDecodeError:
            if method_sig != spec.Basic.Deliver or _is_readable(lambda: loads("sLbss", payload, 4)):
                raise
        _, end = loads("sLb", payload, 4)
        return super().on_inbound_method(channel_id, method_sig, payload[:end] + _NO_ADDRESS, content)


class AmqpTransport(_PyamqpTransport):
    """Reads what the socket holds in one go, where kombu takes one message per pass of the event loop."""

    Connection = AmqpConnection

    def _make_reader(self, connection: Any, *args: Any, **options: Any) -> Callable[[Any], None]:
        if isinstance(connection.sock, ssl.SSLSocket):
            stock: Callable[[Any], None] = super()._make_reader(connection, *args, **options)
            return stock

        def read(_: Any) -> None:
            if not connection.connected:
                raise RecoverableConnectionError("Socket was disconnected")
            transport = connection.transport
            try:
                data = transport.sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return
            if not data:
                raise RecoverableConnectionError("the broker closed the connection")
            _dispatch(connection, transport, data)

        return read


def _forgiving_frame_handler(connection: Any, callback: Callable[..., Any]) -> Callable[[Any], bool]:
    handle: Callable[[Any], bool] = frame_handler(connection, callback)

    def on_frame(frame: tuple[int, int, bytes]) -> bool:
        try:
            return handle(frame)
        except Exception:
            kind, channel, payload = frame
            if kind != _CONTENT_HEADER or _is_readable(lambda: decode_properties_basic(payload, SIZES_BYTES)):
                raise
        return handle((kind, channel, payload[:SIZES_BYTES] + _NO_PROPERTIES))

    return on_frame


def _is_readable(read: Callable[[], Any]) -> bool:
    try:
        read()
    except Exception:
        return False
    return True


def _dispatch(connection: AmqpConnection, transport: Any, data: bytes) -> None:
    if transport._read_buffer:
        # What py-amqp's own blocking reads left over comes first.
        data = transport._read_buffer + data
        transport._read_buffer = b""
    at = 0
    on_frame = connection.on_inbound_frame
    # py-amqp takes the count for the broker's sign of life.
    connection.bytes_recv += 1
    try:
        while (frame := _frame_at(data, at)) is not None:
            kind, channel, after = frame
            start = at + FRAME_HEAD.size
            quick = channel == connection.quick_channel and (kind != METHOD or data.startswith(DELIVER, start))
            if quick and kind == METHOD and connection.deliveries is not None:
                taken = connection.deliveries.take(data, at, after)
                if taken == Not.WHOLE:
                    break
                if taken != Not.PLAIN:
                    at = taken
                    continue
            payload = data[start : after - 1]
            at = after
            if quick:
                on_frame((kind, channel, payload))
                continue
            # Whoever handles this one may wait for an answer: it has to find the frames that came before that.
            transport._read_buffer, data, at = data[at:], b"", 0
            on_frame((kind, channel, payload))
            data, transport._read_buffer = transport._read_buffer, b""
    finally:
        transport._read_buffer = data[at:] + transport._read_buffer


def _frame_at(data: bytes, at: int) -> tuple[int, int, int] | None:
    if len(data) - at < FRAME_OVERHEAD:
        return None
    kind, channel, size = FRAME_HEAD.unpack_from(data, at)
    after = at + FRAME_OVERHEAD + size
    if after > len(data):
        return None
    if data[after - 1] != FRAME_END:
        raise UnexpectedFrame("a frame without its end")
    return kind, channel, after
