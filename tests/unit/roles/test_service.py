"""The loop that every role inherits."""

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from taskplatform.errors import OutcomeUnknown, StoreUnavailable
from taskplatform.service import LONGEST_WAIT_SECONDS, Role, wait_after
from taskplatform.telemetry import new_metrics

Step = Callable[[], bool]
FOR_EVER = 3600.0


class Scripted(Role):
    """Does what the script says, one step a round, and nothing after its end."""

    name = "scripted"

    def __init__(self, *script: Step, pause_seconds: float = 0.0) -> None:
        super().__init__(new_metrics(), pause_seconds=pause_seconds)
        self._script: Iterator[Step] = itertools.chain(script, itertools.repeat(nothing_to_do))
        self.rounds = 0

    async def run_once(self) -> bool:
        self.rounds += 1
        return next(self._script)()


def nothing_to_do() -> bool:
    return False


def more_to_do() -> bool:
    return True


def fails_with(error: Exception) -> Step:
    def fail() -> bool:
        raise error

    return fail


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskplatform.service.FIRST_WAIT_SECONDS", 0.0)


async def rounds_of(role: Scripted, count: int) -> None:
    stop = asyncio.Event()

    def after_round() -> None:
        if role.rounds >= count:
            stop.set()

    role.after_round = after_round
    await role.run(stop)


def test_a_role_starts_and_stops_many_times() -> None:
    async def scenario() -> None:
        role = Scripted(pause_seconds=FOR_EVER)
        for begun in range(50):
            await rounds_of(role, begun + 1)

    asyncio.run(scenario())


def test_a_stop_cuts_a_rest_short() -> None:
    async def scenario() -> int:
        role = Scripted(pause_seconds=FOR_EVER)
        rested, stop = asyncio.Event(), asyncio.Event()
        role.after_round = rested.set
        running = asyncio.create_task(role.run(stop))
        await rested.wait()
        stop.set()
        await running
        return role.rounds

    assert asyncio.run(scenario()) == 1


def test_a_role_that_is_stopped_before_it_starts_does_nothing() -> None:
    async def scenario() -> int:
        role, stop = Scripted(), asyncio.Event()
        stop.set()
        await role.run(stop)
        return role.rounds

    assert asyncio.run(scenario()) == 0


def test_a_round_that_has_begun_is_finished() -> None:
    class Slow(Scripted):
        finished = False

        async def run_once(self) -> bool:
            stop.set()
            await asyncio.create_task(stop.wait())
            self.finished = True
            return False

    stop = asyncio.Event()
    role = Slow()

    asyncio.run(role.run(stop))

    assert role.finished


def test_a_backlog_is_worked_off_without_rests() -> None:
    role = Scripted(more_to_do, more_to_do, more_to_do, pause_seconds=FOR_EVER)

    asyncio.run(rounds_of(role, 4))

    assert role.rounds == 4


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), OutcomeUnknown("cut off"), ZeroDivisionError("a bug"), RuntimeError()]
)
def test_a_role_outlives_every_error(error: Exception) -> None:
    role = Scripted(fails_with(error), fails_with(error))

    asyncio.run(rounds_of(role, 3))

    assert role.rounds == 3


def test_a_rest_that_fails_ends_nothing() -> None:
    class Restless(Scripted):
        async def rest(self) -> None:
            raise ZeroDivisionError

    role = Restless()

    asyncio.run(rounds_of(role, 3))

    assert role.rounds == 3


def test_a_trouble_is_told_once_until_it_changes_and_its_end_too() -> None:
    away, cut_off = StoreUnavailable("away"), OutcomeUnknown("cut off")
    role = Scripted(*[fails_with(error) for error in (away, away, away, cut_off, cut_off)])

    with structlog.testing.capture_logs() as lines:
        asyncio.run(rounds_of(role, 8))

    assert [(line["log_level"], line.get("trouble")) for line in lines] == [
        ("warning", "StoreUnavailable: away"),
        ("warning", "OutcomeUnknown: cut off"),
        ("info", None),
    ]


def test_a_bug_is_told_with_its_traceback() -> None:
    bug = ZeroDivisionError("a bug")

    with structlog.testing.capture_logs() as lines:
        asyncio.run(rounds_of(Scripted(fails_with(bug), fails_with(bug)), 2))

    assert [(line["log_level"], line["exc_info"]) for line in lines] == [("error", bug)]


def test_failed_rounds_are_counted() -> None:
    role = Scripted(fails_with(StoreUnavailable("away")), fails_with(ZeroDivisionError()))

    asyncio.run(rounds_of(role, 3))

    assert role.metrics.registry.get_sample_value("tp_role_errors_total", {"role": "scripted"}) == 2


@pytest.mark.parametrize(("rounds", "mode"), [(1, 1), (2, 0)])
def test_the_mode_shows_whether_a_role_can_work(rounds: int, mode: int) -> None:
    role = Scripted(fails_with(StoreUnavailable("away")))

    asyncio.run(rounds_of(role, rounds))

    assert role.metrics.registry.get_sample_value("tp_mode", {"component": "scripted"}) == mode


@settings(deadline=None)
@given(failures=st.integers(min_value=0, max_value=10_000))
def test_the_wait_after_failures_is_bounded(failures: int) -> None:
    assert 0 <= wait_after(failures) <= LONGEST_WAIT_SECONDS
