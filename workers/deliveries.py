"""Takes whole deliveries off a run of AMQP frames, without the objects that py-amqp would make of each."""

from __future__ import annotations

from collections.abc import Container
from enum import IntEnum
from struct import Struct
from typing import Final, Protocol

FRAME_HEAD: Final = Struct(">BHI")
FRAME_END: Final = 0xCE
FRAME_OVERHEAD: Final = FRAME_HEAD.size + 1
METHOD: Final = 1
DELIVER: Final = bytes((0, 60, 0, 60))
_HEADER: Final = 2
_BODY: Final = 3
_AT_BODY_SIZE = slice(4, 12)
_TAG_BYTES: Final = 8
_METHOD_BYTES: Final = 4


class Not(IntEnum):
    """Why the front of the data was not taken."""

    WHOLE = -1  # more bytes have to come first
    PLAIN = -2  # it is nothing but what py-amqp has to look at


class Take(Protocol):
    """Takes one delivery: the payload of its content header, its body and its delivery tag."""

    def __call__(self, header: bytes, body: bytes, tag: int, /) -> bool:
        """Take it; False leaves it to py-amqp. Never raises over what a message holds."""


class Deliveries:
    """The deliveries of one channel; those of a consumer that `consumers` does not name are py-amqp's to refuse."""

    def __init__(self, channel: int, consumers: Container[str], take: Take) -> None:
        self._channel = channel
        self._consumers = consumers
        self._take = take

    def take(self, data: bytes, at: int, after: int) -> int:
        """Take the delivery whose method frame lies from `at` to `after`; gives where the next frame begins, or Not."""
        head = at + FRAME_HEAD.size
        tag_at = head + _METHOD_BYTES + 1 + data[head + _METHOD_BYTES]
        header = self._payload(data, after, _HEADER)
        if isinstance(header, Not):
            return header
        body = b""
        end = after + FRAME_OVERHEAD + len(header)
        size = int.from_bytes(header[_AT_BODY_SIZE], "big")
        if size:
            found = self._payload(data, end, _BODY, size)
            if isinstance(found, Not):
                return found
            body = found
            end += FRAME_OVERHEAD + size
        try:
            consumer = data[head + _METHOD_BYTES + 1 : tag_at].decode()
        except UnicodeDecodeError:
            return Not.PLAIN
        tag = int.from_bytes(data[tag_at : tag_at + _TAG_BYTES], "big")
        if consumer not in self._consumers or not self._take(header, body, tag):
            return Not.PLAIN
        return end

    def _payload(self, data: bytes, at: int, kind: int, size: int | None = None) -> bytes | Not:
        if len(data) - at < FRAME_OVERHEAD:
            return Not.WHOLE
        found, channel, length = FRAME_HEAD.unpack_from(data, at)
        if found != kind or channel != self._channel or (size is not None and length != size):
            # A body in several frames, frames of other channels in between, or nonsense.
            return Not.PLAIN
        end = at + FRAME_HEAD.size + length
        if end >= len(data):
            return Not.WHOLE
        return data[at + FRAME_HEAD.size : end] if data[end] == FRAME_END else Not.PLAIN
