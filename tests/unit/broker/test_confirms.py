"""Confirms find their messages, whatever order they come in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.broker.rabbitmq.confirms import Batch, Confirms
from taskplatform.payload import Message


@pytest.fixture
def confirms() -> Confirms:
    return Confirms()


def test_an_ack_for_several_confirms_all_up_to_it(confirms: Confirms) -> None:
    batch = _tracked(confirms, "abcd")

    confirms.settle(3, multiple=True, taken=True)

    assert batch.confirmed == {"a", "b", "c"}


def test_tag_nought_for_several_means_all(confirms: Confirms) -> None:
    batch = _tracked(confirms, "abc")

    confirms.settle(0, multiple=True, taken=True)

    assert batch.confirmed == {"a", "b", "c"}


def test_a_single_ack_out_of_order_confirms_its_message_alone(confirms: Confirms) -> None:
    batch = _tracked(confirms, "abc")

    confirms.settle(2, multiple=False, taken=True)

    assert batch.confirmed == {"b"}


def test_a_refused_message_stays_unconfirmed_when_later_ones_are_taken(confirms: Confirms) -> None:
    batch = _tracked(confirms, "abc")

    confirms.settle(2, multiple=False, taken=False)
    confirms.settle(3, multiple=True, taken=True)

    assert batch.confirmed == {"a", "c"}


def test_a_returned_message_is_not_confirmed_by_its_ack(confirms: Confirms) -> None:
    batch = _tracked(confirms, "ab")

    confirms.returned("a", "q")
    confirms.settle(2, multiple=True, taken=True)

    assert batch.confirmed == {"b"}


def test_a_message_that_is_published_again_after_its_return_is_confirmed(confirms: Confirms) -> None:
    _tracked(confirms, "a")
    confirms.returned("a", "q")
    confirms.settle(1, multiple=False, taken=True)
    again = _tracked(confirms, "a")

    confirms.settle(2, multiple=False, taken=True)

    assert again.confirmed == {"a"}


def test_a_return_from_one_queue_says_nothing_about_another(confirms: Confirms) -> None:
    batch = _tracked(confirms, "a")

    confirms.returned("a", "elsewhere")
    confirms.settle(1, multiple=False, taken=True)

    assert batch.confirmed == {"a"}


def test_an_ack_for_an_abandoned_message_changes_nothing(confirms: Confirms) -> None:
    late = _tracked(confirms, "ab")
    confirms.abandon(late)
    batch = _tracked(confirms, "cd")

    confirms.settle(2, multiple=True, taken=True)

    assert (late.confirmed, batch.confirmed) == (set(), set())


def test_abandoned_messages_take_no_room(confirms: Confirms) -> None:
    confirms.abandon(_tracked(confirms, "ab"))

    assert len(confirms) == 0


def test_a_batch_is_done_when_its_last_message_is_settled(confirms: Confirms) -> None:
    batch = _tracked(confirms, "ab")
    confirms.settle(2, multiple=False, taken=False)
    before = batch.done.is_set()

    confirms.settle(1, multiple=False, taken=True)

    assert (before, batch.done.is_set()) == (False, True)


def test_every_batch_is_done_when_the_channel_is_gone(confirms: Confirms) -> None:
    batches = [_tracked(confirms, "ab"), _tracked(confirms, "c")]
    confirms.settle(1, multiple=False, taken=True)

    confirms.give_up()

    assert [(batch.done.is_set(), batch.confirmed) for batch in batches] == [(True, {"a"}), (True, set())]


def test_an_ack_for_a_tag_that_was_never_given_confirms_nothing_later(confirms: Confirms) -> None:
    confirms.settle(5, multiple=True, taken=True)

    batch = _tracked(confirms, "a")

    assert batch.confirmed == set()
    confirms.settle(1, multiple=True, taken=True)
    assert batch.confirmed == {"a"}


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.booleans()), max_size=60))
def test_each_message_goes_by_the_first_answer_that_names_it(answers: list[tuple[int, bool, bool]]) -> None:
    confirms = Confirms()
    batch = Batch(40)
    confirms.track(batch, [_message(str(tag)) for tag in range(1, 41)])

    for tag, multiple, taken in answers:
        confirms.settle(tag, multiple=multiple, taken=taken)

    def first_answer(tag: int) -> bool | None:
        return next((taken for upto, multiple, taken in answers if tag == upto or (multiple and tag <= upto)), None)

    assert batch.confirmed == {str(tag) for tag in range(1, 41) if first_answer(tag)}
    assert len(confirms) == sum(first_answer(tag) is None for tag in range(1, 41))


def _message(name: str) -> Message:
    return Message(id=name, routing_key="q", headers={}, body=b"")


def _tracked(confirms: Confirms, names: str) -> Batch:
    batch = Batch(len(names))
    confirms.track(batch, [_message(name) for name in names])
    return batch
