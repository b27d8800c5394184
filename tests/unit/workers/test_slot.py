"""The memory that a child shares with its parent."""

from workers.slot import Slot


def test_the_parent_reads_each_outcome_once() -> None:
    slot = Slot()
    slot.open(1, 3)
    slot.record(1, b"first")
    assert list(slot.take(1)) == [b"first"]

    slot.record(1, b"second")

    assert list(slot.take(1)) == [b"second"]


def test_two_chunks_do_not_mix() -> None:
    slot = Slot()
    slot.open(1, 1)
    slot.open(2, 1)
    slot.record(2, b"two")
    slot.start(1, 0, 5.0)

    assert list(slot.take(1)) == []
    assert list(slot.take(2)) == [b"two"]
    assert (slot.started(1), slot.started(2)) == ((0, 5.0), (-1, 0.0))


def test_a_child_starts_nothing_that_was_taken_back() -> None:
    slot = Slot()
    slot.open(1, 3)
    assert slot.start(1, 0, 1.0)

    slot.limit(1, 1)

    assert not slot.start(1, 1, 2.0)
    assert slot.started(1)[0] == 0


def test_an_outcome_without_room_is_refused() -> None:
    slot = Slot()
    slot.open(1, 1)

    assert not slot.record(1, b"x" * (1 << 20))
    assert list(slot.take(1)) == []
