"""The frames of a publish are those that AMQP describes."""

import struct
from itertools import pairwise
from uuid import uuid4

import msgspec
import pytest
from amqp.serialization import loads

from taskplatform.broker.rabbitmq import frames
from taskplatform.job import Envelope
from taskplatform.payload import Message, encode

_LIMIT = 4096


def test_py_amqp_reads_the_properties_that_we_write() -> None:
    message = Message(
        id="the-id", routing_key="q", headers={"task": "some.task", "retries": 0, "eta": None}, body=b"[]"
    )

    _, header, _ = _split(frames.publish(1, message, _LIMIT))

    # Class, weight, size and flags take 14 bytes.
    read, _ = loads("ssFosss", header[2], 14)
    headers = {"task": "some.task", "retries": 0, "eta": None}
    assert read == ["application/json", "utf-8", headers, 2, "the-id", "the-id", "some.task"]


@pytest.mark.parametrize("trace", [None, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
def test_py_amqp_reads_every_header_of_jobs_of_one_kind(trace: str | None) -> None:
    job = Envelope(id=uuid4(), task="some.task", body="[[],{},{}]", tenant="acme", pool="default", hard_limit_seconds=9)
    messages = [encode(msgspec.structs.replace(job, id=uuid4(), trace=trace), b"k" * 32) for _ in range(2)]

    published = [_split(frames.publish(1, message, _LIMIT))[1] for message in messages]

    read = [loads("ssFosss", payload, 14)[0] for _, _, payload in published]
    assert [properties[2] for properties in read] == [dict(message.headers) for message in messages]


def test_a_publish_is_mandatory_and_goes_to_the_default_exchange() -> None:
    message = Message(id="i", routing_key="jobs.a.normal", headers={}, body=b"[]")

    publish, _, _ = _split(frames.publish(7, message, _LIMIT))

    assert publish == (1, 7, b"\x00\x3c\x00\x28" + b"\x00\x00" + b"\x00" + b"\x0djobs.a.normal" + b"\x01")


def test_a_body_beyond_a_frame_is_spread_over_several_in_order() -> None:
    body = bytes(range(256)) * 64
    message = Message(id="i", routing_key="q", headers={}, body=body)

    _, header, *bodies = _split(frames.publish(1, message, _LIMIT))

    assert struct.unpack_from(">Q", header[2], 4) == (len(body),)
    assert b"".join(payload for _, _, payload in bodies) == body
    assert all(len(payload) + frames.FRAME_OVERHEAD <= _LIMIT for _, _, payload in bodies)


def test_a_body_that_just_fits_takes_one_frame() -> None:
    sizes = [_LIMIT - frames.FRAME_OVERHEAD, _LIMIT - frames.FRAME_OVERHEAD + 1]

    counts = [
        len(_split(frames.publish(1, Message(id="i", routing_key="q", headers={}, body=b"x" * size), _LIMIT)))
        for size in sizes
    ]

    assert counts == [3, 4]


def test_messages_of_one_queue_share_the_bytes_that_name_it() -> None:
    messages = [Message(id=str(number), routing_key="q", headers={}, body=b"[]") for number in range(3)]

    methods = [_split(frames.publish(1, message, _LIMIT))[0] for message in messages]

    assert all(one == other for one, other in pairwise(methods))


def _split(data: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while data:
        kind, channel, size = struct.unpack_from(">BHI", data)
        assert data[7 + size] == 0xCE
        found.append((kind, channel, data[7 : 7 + size]))
        data = data[8 + size :]
    return found
