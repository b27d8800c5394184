"""A coroutine on a loop of its own, and how a signal ends it."""

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from taskplatform.task import CoroutineTask, task
from workers.coroutines import complete, completing, interrupt_coroutine


class _Stop(Exception):
    pass


@pytest.fixture
def alarm() -> Iterator[None]:
    """A signal a moment from now that interrupts the coroutine which runs then."""

    def ring(signum: int, frame: FrameType | None) -> None:
        assert interrupt_coroutine(_Stop("time is up"))

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


async def _double(number: int) -> int:
    return 2 * number


async def _wait() -> None:
    await asyncio.Event().wait()


def test_a_coroutine_gives_its_result() -> None:
    assert completing(_double)(4) == 8


def test_a_signal_ends_a_waiting_coroutine_with_its_error(alarm: None) -> None:
    with pytest.raises(_Stop, match="time is up"):
        complete(_wait())


def test_an_interrupted_coroutine_may_clean_up(alarm: None) -> None:
    cleaned: list[bool] = []

    async def tidy() -> None:
        try:
            await _wait()
        finally:
            cleaned.append(True)

    with pytest.raises(_Stop):
        complete(tidy())
    assert cleaned == [True]


def test_a_coroutine_that_cancels_itself_is_cancelled() -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        complete(give_up())


def test_nothing_is_interrupted_where_no_job_is_awaited() -> None:
    assert not interrupt_coroutine(_Stop())


def test_a_task_may_be_a_coroutine() -> None:
    double = task(name="double")(_double)

    assert isinstance(double, CoroutineTask)
    assert complete(double(4)) == 8
