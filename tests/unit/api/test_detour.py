"""The way around the store: every submission that is not stored opens it, and it closes on proof alone."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from api.detour import Detour
from taskplatform.errors import OutcomeUnknown, ShardMoved, StoreUnavailable, TaskplatformError
from taskplatform.job import NewJob
from taskplatform.telemetry import Metrics, new_metrics
from tests.fixtures.store import a_job


class Store:
    """Cannot say what is wrong with it when it is asked first, and is well when it is asked again."""

    def __init__(self) -> None:
        self.traces: list[dict[str, Any]] = []
        self.open_when_asked: list[bool] = []
        self.detour: Detour | None = None

    async def prove(self, within_seconds: float) -> None:
        """Fail once."""
        assert self.detour is not None
        self.open_when_asked.append(self.detour.open)
        self.traces.append(structlog.contextvars.get_contextvars())
        if len(self.traces) == 1:
            raise ValueError("nobody has thought of this")


class Intake:
    """An intake whose store is away, or says nothing."""

    def __init__(self, error: TaskplatformError | None) -> None:
        self.error = error
        self.asked = 0

    def hand_in(self, jobs: object, *, whole: bool) -> asyncio.Future[Any]:
        """Fail, or never end."""
        self.asked += 1
        answer = asyncio.get_running_loop().create_future()
        if self.error is not None:
            answer.set_exception(self.error)
        return answer


JOB = a_job()
CHECKER = SimpleNamespace(spec=SimpleNamespace(max_attempts=JOB.max_attempts))


def a_detour(intake: Intake, store: Store, metrics: Metrics) -> Detour:
    return Detour(
        cast(Any, intake),
        cast(Any, store),
        cast(Any, SimpleNamespace(keeps_confirmed=False)),
        cast(Any, SimpleNamespace(metrics=metrics)),
        cast(Any, SimpleNamespace(known=lambda task: CHECKER)),
    )


def test_a_probe_that_fails_unexpectedly_proves_nothing_and_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.detour.PROBE_SECONDS", 0.001)
    store, metrics = Store(), new_metrics()

    async def scenario() -> None:
        detour = store.detour = a_detour(Intake(StoreUnavailable("away")), store, metrics)
        with structlog.contextvars.bound_contextvars(trace_id="of a request"), pytest.raises(StoreUnavailable):
            await detour.submit([JOB])
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=30)
        assert not detour.open

    asyncio.run(scenario())

    assert store.open_when_asked == [True, True]
    assert store.traces == [{}, {}]
    assert metrics.mode.labels(component="writes")._value.get() == 0


WITH_KEY = a_job(key="order-1", fingerprint="f")
NO_MESSAGE = pytest.mark.parametrize(
    ("jobs", "whole"), [([WITH_KEY], False), ([JOB, WITH_KEY], False), ([JOB, a_job()], True)]
)


@NO_MESSAGE
@pytest.mark.parametrize("error", [None, StoreUnavailable("away"), OutcomeUnknown("cut off")])
def test_what_the_broker_cannot_take_opens_it_too_and_is_refused_at_once_from_then_on(
    monkeypatch: pytest.MonkeyPatch, jobs: list[NewJob], error: TaskplatformError | None, *, whole: bool
) -> None:
    monkeypatch.setattr("api.detour.PATIENCE_SECONDS", 0.01)
    intake = Intake(error)

    async def scenario() -> None:
        detour = a_detour(intake, Store(), new_metrics())
        async with asyncio.timeout(30):
            with pytest.raises(type(error or OutcomeUnknown(""))):
                await detour.submit(jobs, whole=whole)
            assert detour.open
            with pytest.raises(StoreUnavailable):
                await detour.submit(jobs, whole=whole)
            await detour.stop()

    asyncio.run(scenario())

    assert intake.asked == 1


@NO_MESSAGE
def test_a_store_that_knows_a_new_home_is_not_away(jobs: list[NewJob], *, whole: bool) -> None:
    async def scenario() -> None:
        detour = a_detour(Intake(ShardMoved("moved")), Store(), new_metrics())
        with pytest.raises(ShardMoved):
            await detour.submit(jobs, whole=whole)
        assert not detour.open

    asyncio.run(scenario())
