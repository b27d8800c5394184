"""The loop's calls, on Celery's hub."""

from collections.abc import Iterator
from functools import partial

import pytest
from kombu.asynchronous import Hub

from workers.loop import Loop


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub whose loop a test turns by hand."""
    hub = Hub()
    yield hub
    hub.close()


def turn(hub: Hub) -> None:
    hub.call_later(0, lambda: None)
    next(hub.create_loop())


def fail() -> None:
    raise ConnectionResetError("the broker went away")


def test_calls_are_made_in_turn(hub: Hub) -> None:
    loop, made = Loop(), list[int]()
    loop.attach(hub)
    for number in range(5):
        loop.call_soon(partial(made.append, number))

    turn(hub)

    assert made == [0, 1, 2, 3, 4]


def test_what_was_to_be_called_when_the_connection_broke_is_called_on_the_next(hub: Hub) -> None:
    loop, made = Loop(), list[str]()
    loop.attach(hub)
    loop.call_soon(fail)
    loop.call_soon(lambda: made.append("turn"))
    with pytest.raises(ConnectionResetError):
        turn(hub)

    loop.attach(hub)
    turn(hub)

    assert made == ["turn"]


def test_what_is_to_be_called_before_there_is_a_hub_waits_for_it(hub: Hub) -> None:
    loop, made = Loop(), list[str]()
    loop.call_soon(lambda: made.append("early"))

    loop.attach(hub)
    turn(hub)

    assert made == ["early"]
