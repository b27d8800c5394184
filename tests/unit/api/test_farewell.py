"""Which signals stop an API process at once, and which it waits for load balancers after."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from api.farewell import ECHO_SECONDS, on_stop


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """The signals that the server has heard."""
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda received, _: heard.append(received))
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("second_after", "heard"), [(0.0, []), (ECHO_SECONDS / 2, []), (ECHO_SECONDS, [signal.SIGTERM])]
)
def test_a_second_signal_is_a_hurry_only_when_it_is_no_echo(
    stopped: list[int], second_after: float, heard: list[int]
) -> None:
    now = 100.0
    left: list[float] = []

    async def play() -> None:
        nonlocal now
        on_stop(lambda: left.append(now), 3_600.0, clock=lambda: now)
        await _tell(signal.SIGINT)
        now += second_after
        await _tell(signal.SIGTERM)

    asyncio.run(play())

    assert left == [100.0]
    assert stopped == heard


def test_without_a_time_to_drain_the_first_signal_is_enough(stopped: list[int]) -> None:
    async def play() -> None:
        on_stop(lambda: None, 0.0)
        await _tell(signal.SIGTERM)

    asyncio.run(play())

    assert stopped == [signal.SIGTERM]


async def _tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    for _ in range(5):
        # The handler, what it calls in the loop, and what that calls at once.
        turn = asyncio.Event()
        asyncio.get_running_loop().call_soon(turn.set)
        await turn.wait()
