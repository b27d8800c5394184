"""Whole deliveries are taken off a run of frames; all else is left to py-amqp."""

from struct import pack

from workers.deliveries import FRAME_HEAD, Deliveries, Not

CHANNEL = 1
HEADER = pack(">HHQ", 60, 0, 4) + b"\x00\x00"
EMPTY_HEADER = pack(">HHQ", 60, 0, 0) + b"\x00\x00"
Taken = list[tuple[bytes, bytes, int]]


def frame(kind: int, payload: bytes, channel: int = CHANNEL, end: bytes = b"\xce") -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + end


def method(tag: int = 7, consumer: bytes = b"c1") -> bytes:
    return frame(1, pack(">HHB", 60, 60, len(consumer)) + consumer + pack(">QB", tag, 0) + b"\x00\x00")


def delivery(tag: int = 7, body: bytes = b"body") -> bytes:
    return method(tag) + frame(2, pack(">HHQ", 60, 0, len(body)) + b"\x00\x00") + (frame(3, body) if body else b"")


def take(data: bytes, *, willing: bool = True) -> tuple[int, Taken]:
    taken: Taken = []

    def take_one(header: bytes, body: bytes, tag: int) -> bool:
        taken.append((header, body, tag))
        return willing

    _, _, size = FRAME_HEAD.unpack_from(data)
    return Deliveries(CHANNEL, {"c1"}, take_one).take(data, 0, FRAME_HEAD.size + size + 1), taken


def test_a_whole_delivery_is_taken_and_what_follows_is_left() -> None:
    data = delivery(7)

    assert take(data + delivery(8)) == (len(data), [(HEADER, b"body", 7)])


def test_a_delivery_without_a_body_is_whole() -> None:
    data = delivery(body=b"")

    assert take(data) == (len(data), [(EMPTY_HEADER, b"", 7)])


def test_a_delivery_waits_for_its_last_byte() -> None:
    data = delivery()
    begun = len(method())

    assert {take(data[:end])[0] for end in range(begun, len(data))} == {Not.WHOLE}


def test_a_body_in_pieces_is_not_waited_for() -> None:
    data = method() + frame(2, HEADER) + frame(3, b"bo")

    assert take(data) == (Not.PLAIN, [])


def test_frames_of_other_channels_in_between_are_not_for_here() -> None:
    heartbeat = frame(8, b"", channel=0)

    assert take(method() + heartbeat) == (Not.PLAIN, [])
    assert take(method() + frame(2, HEADER) + frame(2, HEADER, channel=2)) == (Not.PLAIN, [])


def test_a_frame_without_its_end_is_not_for_here() -> None:
    assert take(method() + frame(2, HEADER, end=b"\x00") + frame(3, b"body")) == (Not.PLAIN, [])


def test_what_a_strange_consumer_gets_is_not_for_here() -> None:
    rest = frame(2, HEADER) + frame(3, b"body")

    assert take(method(consumer=b"c2") + rest) == (Not.PLAIN, [])
    assert take(method(consumer=b"\xff") + rest) == (Not.PLAIN, [])
    assert take(frame(1, bytes((0, 60, 0, 60, 200))) + rest) == (Not.PLAIN, [])


def test_what_nobody_can_read_is_left() -> None:
    assert take(delivery(), willing=False)[0] == Not.PLAIN
