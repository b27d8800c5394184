"""AMQP 0-9-1 frames and the methods that the driver speaks, as bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from taskplatform.broker.rabbitmq.table import encode_entries, encode_table, long_string, short_string
from taskplatform.payload import CONTENT_ENCODING, CONTENT_TYPE, Message, Stamp

PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
FRAME_END: Final = 0xCE
FRAME_HEAD: Final = struct.Struct(">BHI")
FRAME_OVERHEAD: Final = 8
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
LARGEST_BODY: Final = 16 * 1024 * 1024
"""RabbitMQ 4 closes the channel on a larger one (its `max_message_size`), and with it everything in flight."""


class Kind(IntEnum):
    """What a frame carries."""

    METHOD = 1
    HEADER = 2
    BODY = 3
    HEARTBEAT = 8


class Method(IntEnum):
    """Class and method number in one."""

    CONNECTION_START = 0x000A000A
    CONNECTION_START_OK = 0x000A000B
    CONNECTION_TUNE = 0x000A001E
    CONNECTION_TUNE_OK = 0x000A001F
    CONNECTION_OPEN = 0x000A0028
    CONNECTION_OPEN_OK = 0x000A0029
    CONNECTION_CLOSE = 0x000A0032
    CONNECTION_CLOSE_OK = 0x000A0033
    CONNECTION_BLOCKED = 0x000A003C
    CONNECTION_UNBLOCKED = 0x000A003D
    CHANNEL_OPEN = 0x0014000A
    CHANNEL_OPEN_OK = 0x0014000B
    CHANNEL_FLOW = 0x00140014
    CHANNEL_FLOW_OK = 0x00140015
    CHANNEL_CLOSE = 0x00140028
    CHANNEL_CLOSE_OK = 0x00140029
    QUEUE_DECLARE = 0x0032000A
    QUEUE_DECLARE_OK = 0x0032000B
    BASIC_PUBLISH = 0x003C0028
    BASIC_RETURN = 0x003C0032
    BASIC_GET = 0x003C0046
    BASIC_GET_OK = 0x003C0047
    BASIC_GET_EMPTY = 0x003C0048
    BASIC_ACK = 0x003C0050
    BASIC_NACK = 0x003C0078
    CONFIRM_SELECT = 0x0055000A
    CONFIRM_SELECT_OK = 0x0055000B


CARRIES_CONTENT: Final = frozenset({Method.BASIC_RETURN, Method.BASIC_GET_OK})


@dataclass(frozen=True, slots=True)
class Incoming:
    """A method as it arrived: its arguments undecoded, and the content that came with it."""

    method: int
    arguments: bytes
    header: bytes = b""
    body: bytes = b""


def frame(kind: Kind, channel: int, payload: bytes) -> bytes:
    """Wrap a payload."""
    return b"%b%b\xce" % (FRAME_HEAD.pack(kind, channel, len(payload)), payload)


def method(channel: int, name: Method, arguments: bytes = b"") -> bytes:
    """Make the frame of a method."""
    return frame(Kind.METHOD, channel, name.to_bytes(4, "big") + arguments)


def start_ok(user: str, password: str, client: Mapping[str, Any]) -> bytes:
    """Answer the greeting with a name and a password (SASL PLAIN)."""
    secret = f"\0{user}\0{password}".encode()
    arguments = encode_table(client) + short_string("PLAIN") + long_string(secret) + short_string("en_US")
    return method(0, Method.CONNECTION_START_OK, arguments)


def tune_ok(channels: int, frame_limit: int, heartbeat_seconds: int) -> bytes:
    """Settle the connection's limits."""
    return method(0, Method.CONNECTION_TUNE_OK, struct.pack(">HIH", channels, frame_limit, heartbeat_seconds))


def connection_open(vhost: str) -> bytes:
    """Enter a virtual host."""
    return method(0, Method.CONNECTION_OPEN, short_string(vhost) + b"\0\0")


def connection_close() -> bytes:
    """Say goodbye."""
    return method(0, Method.CONNECTION_CLOSE, struct.pack(">H", 200) + short_string("bye") + b"\0\0\0\0")


def queue_declare(channel: int, name: str, arguments: Mapping[str, Any] | None) -> bytes:
    """Declare a durable queue; without `arguments` only ask for it, which closes the channel when there is none."""
    passive, durable = 1, 2
    bits = passive if arguments is None else durable
    return method(
        channel,
        Method.QUEUE_DECLARE,
        b"\0\0" + short_string(name) + bytes((bits,)) + encode_table(arguments or {}),
    )


def basic_get(channel: int, queue: str) -> bytes:
    """Ask for one message that has to be acknowledged."""
    return method(channel, Method.BASIC_GET, b"\0\0" + short_string(queue) + b"\0")


def basic_ack(channel: int, tag: int) -> bytes:
    """Acknowledge one message."""
    return method(channel, Method.BASIC_ACK, tag.to_bytes(8, "big") + b"\0")


def publish(channel: int, message: Message, frame_limit: int) -> bytes:
    """Make the frames that publish a persistent message to the queue of its routing key, or get it returned.

    Raises ValueError for a message that AMQP cannot carry.
    """
    body = message.body
    size = len(body)
    identity = short_string(message.id)
    content = _headers(message)
    task = short_string(str(message.headers.get("task") or ""))
    length = _HEADER_HEAD.size + len(_CONTENT_KIND) + len(content) + len(_PERSISTENT) + 2 * len(identity) + len(task)
    if length > frame_limit - FRAME_OVERHEAD:
        raise ValueError(f"its headers take {length} bytes, and a frame holds {frame_limit}")
    if size > LARGEST_BODY:
        raise ValueError(f"its body takes {size} bytes, and a broker takes {LARGEST_BODY}")
    head = (
        _publish_method(channel, message.routing_key),
        FRAME_HEAD.pack(Kind.HEADER, channel, length),
        _HEADER_HEAD.pack(_BASIC, 0, size, _FLAGS),
        _CONTENT_KIND,
        content,
        _PERSISTENT,
        identity,
        identity,
        task,
    )
    if 0 < size <= frame_limit - FRAME_OVERHEAD:
        return b"".join((*head, b"\xce", FRAME_HEAD.pack(Kind.BODY, channel, size), body, b"\xce"))
    step = frame_limit - FRAME_OVERHEAD
    pieces = [frame(Kind.BODY, channel, body[start : start + step]) for start in range(0, size, step)]
    return b"".join((*head, b"\xce", *pieces))


_BASIC: Final = 60
_SIZE: Final = struct.Struct(">I")
# content_type, content_encoding, headers, delivery_mode, correlation_id, message_id, type.
_FLAGS: Final = 1 << 15 | 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10 | 1 << 7 | 1 << 5
_HEADER_HEAD: Final = struct.Struct(">HHQH")
_CONTENT_KIND: Final = short_string(CONTENT_TYPE) + short_string(CONTENT_ENCODING)
_PERSISTENT: Final = b"\x02"


def _headers(message: Message) -> bytes:
    stamp = message.stamp
    if stamp is None:
        return encode_table(message.headers)
    shared = _entries_of(stamp)
    own = encode_entries(islice(message.headers.items(), len(stamp.headers), None))
    return _SIZE.pack(len(shared) + len(own)) + shared + own


# By identity: of one kind of job there is one stamp.
@lru_cache(maxsize=1024)
def _entries_of(stamp: Stamp) -> bytes:
    return encode_entries(stamp.headers.items())


@lru_cache(maxsize=1024)
def _publish_method(channel: int, routing_key: str) -> bytes:
    mandatory = b"\x01"
    return method(channel, Method.BASIC_PUBLISH, b"\0\0" + short_string("") + short_string(routing_key) + mandatory)
