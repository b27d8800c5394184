"""Messages whose frames hold what no AMQP client library would write."""

from struct import pack
from typing import Any

from kombu import Connection

from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

_QUEUE = b"jobs.default.normal"
_BODY = b"[[1], {}, null]"
_METHOD, _HEADER, _BODY_FRAME = 1, 2, 3
_CONTENT_TYPE, _HEADERS, _CORRELATION_ID, _MESSAGE_ID, _TIMESTAMP = 0x8000, 0x2000, 0x0400, 0x0080, 0x0040
_LEVELS = 3_000
_NO_TEXT = b"\xff\xfe"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def long(data: bytes) -> bytes:
    return pack(">I", len(data)) + data


def headers(table: bytes) -> bytes:
    return pack(">H", _HEADERS) + long(table)


def nested(letter: bytes, name: bytes) -> bytes:
    value = b""
    for _ in range(_LEVELS):
        value = name + letter + long(value)
    return value


def publish(url: str, properties: bytes, body: bytes = _BODY, routing_key: bytes = _QUEUE) -> None:
    """Send a message's frames as they are; returns when the broker has taken them."""
    with Connection(url) as connection:
        channel: Any = connection.channel()
        number = channel.channel_id
        method = pack(">HHH", 60, 40, 0) + short(b"") + short(routing_key) + b"\x00"
        frames = frame(_METHOD, number, method) + frame(_HEADER, number, pack(">HHQ", 60, 0, len(body)) + properties)
        connection.connection.transport.write(frames + (frame(_BODY_FRAME, number, body) if body else b""))
        channel.close()


UNREADABLE = {
    "a message id that is no text": (pack(">H", _MESSAGE_ID) + short(_NO_TEXT), _BODY),
    "a correlation id that is no text": (pack(">H", _CORRELATION_ID) + short(_NO_TEXT), _BODY),
    "a content type that is no text": (pack(">H", _CONTENT_TYPE) + short(_NO_TEXT), _BODY),
    "a message id that is no text, and no body": (pack(">H", _MESSAGE_ID) + short(_NO_TEXT), b""),
    "a header that is no text": (headers(short(b"task") + b"S" + long(_NO_TEXT)), _BODY),
    "a header whose name is no text": (headers(short(_NO_TEXT) + b"S" + long(b"x")), _BODY),
    "a date beyond all calendars": (headers(short(b"eta") + b"T" + pack(">Q", 2**63)), _BODY),
    "a timestamp beyond all calendars": (pack(">HQ", _TIMESTAMP, 2**64 - 1), _BODY),
    "lists in lists": (headers(short(b"n") + nested(b"A", b"")), _BODY),
    "tables in tables": (headers(nested(b"F", b"\x01n")), _BODY),
}


def test_messages_with_unreadable_properties_end_in_the_dead_letters_and_the_worker_lives(amqp_bench: Bench) -> None:
    worker = amqp_bench.worker()

    for properties, body in UNREADABLE.values():
        publish(amqp_bench.broker_url, properties, body)
    good = amqp_bench.submit("noop", 7)

    assert amqp_bench.ended(good)["state"] == "succeeded"
    eventually(lambda: amqp_bench.depth("jobs.default.dead") == len(UNREADABLE), within_seconds=20)
    assert amqp_bench.depth("jobs.default.normal") == 0
    assert worker.alive


def test_a_routing_key_that_is_no_text_does_not_end_the_worker(amqp_bench: Bench) -> None:
    worker = amqp_bench.worker()
    copies = short(b"CC") + b"A" + long(b"S" + long(_QUEUE))

    publish(amqp_bench.broker_url, headers(copies), routing_key=_NO_TEXT)
    good = amqp_bench.submit("noop", 7)

    assert amqp_bench.ended(good)["state"] == "succeeded"
    eventually(lambda: amqp_bench.depth("jobs.default.dead") == 1, within_seconds=20)
    assert worker.alive
