"""A message is recognised by its shape only where reading all of it would say the same."""

from typing import Any
from uuid import UUID, uuid4

import msgspec
from amqp.serialization import decode_properties_basic
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.broker.rabbitmq.frames import FRAME_HEAD, publish
from taskplatform.job import Envelope, Priority
from taskplatform.payload import Unfit, admit, encode, encode_body
from workers.shapes import SIZES_BYTES, Shapes

KEY = b"k" * 32
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"


def an_envelope(**chosen: Any) -> Envelope:
    given_values: dict[str, Any] = {
        "id": uuid4(),
        "task": "photos.thumbnail",
        "body": encode_body(["flower.jpg"], {"width": 160}),
        "tenant": "acme",
        "pool": "default",
    }
    return Envelope(**{**given_values, **chosen})


def content(envelope: Envelope, key: bytes = KEY) -> tuple[bytes, bytes]:
    """Give the payload of the content header, as it is on the wire, and the body."""
    data, payloads = publish(1, encode(envelope, key), 131_072), []
    while data:
        _, _, size = FRAME_HEAD.unpack_from(data)
        payloads.append(data[FRAME_HEAD.size : FRAME_HEAD.size + size])
        data = data[FRAME_HEAD.size + size + 1 :]
    return payloads[1], payloads[2]


def headers_of(header: bytes) -> dict[str, Any]:
    properties, _ = decode_properties_basic(header, SIZES_BYTES)
    found: dict[str, Any] = properties["application_headers"]
    return found


def admitted(header: bytes, body: bytes) -> Envelope | None:
    try:
        properties, _ = decode_properties_basic(header, SIZES_BYTES)
        return admit(properties["application_headers"], body, properties, [KEY], allow_unsigned=False)
    except (Unfit, ValueError, LookupError):
        return None


def shapes_of(*envelopes: Envelope, keys: tuple[bytes, ...] = (KEY,)) -> Shapes:
    shapes = Shapes(keys)
    for envelope in envelopes:
        header, _ = content(envelope)
        shapes.learn(header, headers_of(header), envelope)
    return shapes


def test_the_next_message_of_a_task_is_recognised_whole() -> None:
    shapes = shapes_of(an_envelope())
    second = an_envelope(body=encode_body(["tree.jpg"], {}))

    assert shapes.recognise(*content(second)) == second


def test_each_message_keeps_its_own_trace() -> None:
    shapes = shapes_of(an_envelope(trace=TRACE))
    second = an_envelope(trace=OTHER_TRACE)

    assert shapes.recognise(*content(second)) == second
    assert shapes.recognise(*content(an_envelope())) is None


def test_what_differs_in_more_than_id_and_trace_is_not_recognised() -> None:
    shapes = shapes_of(an_envelope())
    others: list[dict[str, Any]] = [
        {"task": "photos.thumbnails"},
        {"task": "photos.thumbnaim"},
        {"tenant": "umbr"},
        {"priority": Priority.LOW},
        {"series": 1},
        {"suspect": True},
        {"hard_limit_seconds": 5.0},
    ]

    assert [shapes.recognise(*content(an_envelope(**other))) for other in others] == [None] * len(others)


def test_several_shapes_of_one_length_are_told_apart() -> None:
    shapes = shapes_of(an_envelope(), an_envelope(task="photos.thumbnaim"))
    second = an_envelope(task="photos.thumbnaim")

    assert shapes.recognise(*content(second)) == second


def test_a_known_shape_does_not_replace_the_signature() -> None:
    shapes = shapes_of(an_envelope())
    header, body = content(an_envelope())
    foreign = content(an_envelope(), b"x" * 32)
    other_id, _ = content(an_envelope())

    assert shapes.recognise(*foreign) is None
    assert shapes.recognise(header, body.replace(b"160", b"161")) is None
    assert shapes.recognise(other_id.replace(*_signatures(other_id, header)), body) is None


def test_any_of_the_keys_is_good() -> None:
    second = an_envelope()

    assert shapes_of(an_envelope(), keys=(b"n" * 32, KEY)).recognise(*content(second)) == second


def test_an_id_in_a_place_that_decides_is_no_shape() -> None:
    job_id = uuid4()
    shapes = shapes_of(an_envelope(id=job_id, tenant=str(job_id)))
    other = uuid4()

    assert shapes.recognise(*content(an_envelope(id=other, tenant=str(other)))) is None


def test_an_id_that_is_none_is_not_recognised() -> None:
    shapes = shapes_of(an_envelope(id=UUID(int=0)))
    header, body = content(an_envelope())

    assert shapes.recognise(header.replace(headers_of(header)["id"].encode(), b"z" * 36), body) is None


def test_shapes_do_not_pile_up() -> None:
    many = [an_envelope(series=number) for number in range(1_000)]
    shapes = shapes_of(*many)
    last = an_envelope(series=999)

    assert shapes.recognise(*content(last)) == last
    assert sum(map(len, shapes._known.values())) <= 64


@given(st.data())
def test_whatever_is_changed_reading_all_of_it_says_the_same(data: st.DataObject) -> None:
    first = an_envelope(id=UUID(int=1), trace=TRACE)
    shapes = shapes_of(first)
    header, body = content(msgspec.structs.replace(first, id=UUID(int=2)))
    at = data.draw(st.integers(SIZES_BYTES, len(header) - 1))
    changed = header[:at] + bytes((data.draw(st.integers(0, 255)),)) + header[at + 1 :]

    recognised = shapes.recognise(changed, body)

    assert recognised is None or recognised == admitted(changed, body)


def _signatures(one: bytes, other: bytes) -> tuple[bytes, bytes]:
    return headers_of(one)["tp-signature"].encode(), headers_of(other)["tp-signature"].encode()
