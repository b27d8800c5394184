"""The way around the store: it closes on proof alone."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from api.detour import Detour
from taskplatform.errors import StoreUnavailable
from taskplatform.telemetry import new_metrics
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


class Away:
    """An intake whose store is away."""

    def hand_in(self, jobs: object, *, whole: bool) -> asyncio.Future[Any]:
        """Fail."""
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(StoreUnavailable("away"))
        return failed


def test_a_probe_that_fails_unexpectedly_proves_nothing_and_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.detour.PROBE_SECONDS", 0.001)
    store, metrics, job = Store(), new_metrics(), a_job()
    checker = SimpleNamespace(spec=SimpleNamespace(max_attempts=job.max_attempts))

    async def scenario() -> None:
        detour = store.detour = Detour(
            cast(Any, Away()),
            cast(Any, store),
            cast(Any, SimpleNamespace(keeps_confirmed=False)),
            cast(Any, SimpleNamespace(metrics=metrics)),
            cast(Any, SimpleNamespace(known=lambda task: checker)),
        )
        with structlog.contextvars.bound_contextvars(trace_id="of a request"), pytest.raises(StoreUnavailable):
            await detour.submit([job])
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=30)
        assert not detour.open

    asyncio.run(scenario())

    assert store.open_when_asked == [True, True]
    assert store.traces == [{}, {}]
    assert metrics.mode.labels(component="writes")._value.get() == 0
