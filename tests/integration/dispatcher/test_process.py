"""The dispatcher as a process: it is killed at its worst moments, stopped, and asked how it is."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from taskplatform.job import State
from taskplatform.servers import free_ports
from taskplatform.settings import Settings, environment_of
from tests.fixtures.waiting import eventually
from tests.integration.dispatcher.conftest import Stage
from tests.integration.dispatcher.doomed import Step

ROOT = Path(__file__).parents[3]
DOOMED = Path(__file__).with_name("doomed.py")
DISPATCHER = [sys.executable, "-m", "taskplatform.cli", "dispatcher"]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start dispatcher processes that are gone when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def begin(settings: Settings, command: list[str] = DISPATCHER) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**environment_of(settings), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("step", [Step.RELEASED, Step.PUBLISHED, Step.SETTLED])
def test_a_killed_dispatcher_loses_no_due_job(stage: Stage, start: Start, step: Step) -> None:
    # More than one batch, so that the crash comes in the middle of the work.
    jobs = stage.accept_due(700)
    doomed = start(stage.settings, [sys.executable, str(DOOMED), step])
    assert doomed.wait(60) == -signal.SIGKILL

    start(stage.settings)
    delivered = stage.delivers(jobs)

    assert set(delivered) == {job.id for job in jobs}


@pytest.mark.parametrize("step", [Step.RELEASED, Step.PUBLISHED])
def test_a_relay_killed_in_its_transaction_loses_no_row(stage: Stage, start: Start, step: Step) -> None:
    jobs = stage.accept(50)
    doomed = start(stage.settings, [sys.executable, str(DOOMED), step])
    assert doomed.wait(60) == -signal.SIGKILL

    start(stage.settings)
    delivered = stage.delivers(jobs)

    assert set(delivered) == {job.id for job in jobs}


def test_after_a_crash_the_outbox_is_empty_in_the_end(rabbit_stage: Stage, start: Start) -> None:
    rabbit_stage.accept_due(20)
    doomed = start(rabbit_stage.settings, [sys.executable, str(DOOMED), Step.PUBLISHED])
    assert doomed.wait(60) == -signal.SIGKILL
    assert rabbit_stage.outbox_rows() == 1

    start(rabbit_stage.settings)

    eventually(lambda: rabbit_stage.outbox_rows() == 0, within_seconds=30)


def test_a_dispatcher_killed_while_it_works_off_a_backlog_loses_and_keeps_back_nothing(
    rabbit_stage: Stage, start: Start
) -> None:
    settings = rabbit_stage.settings.changed(dispatch_batch_jobs=20)
    jobs = rabbit_stage.accept_due(4000)
    first = start(settings)
    eventually(lambda: State.QUEUED in rabbit_stage.states(jobs), within_seconds=30)
    first.kill()

    start(settings)
    delivered = rabbit_stage.delivers(jobs, within_seconds=60)

    assert set(delivered) == {job.id for job in jobs}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_dispatcher_that_is_told_to_stop_ends_well(rabbit_stage: Stage, start: Start, number: signal.Signals) -> None:
    (job,) = rabbit_stage.accept_due()
    process = start(rabbit_stage.settings)
    rabbit_stage.delivers([job])

    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, "Traceback" in errors) == (0, False)


def test_a_dispatcher_starts_without_postgres_and_stops_when_told(rabbit_stage: Stage, start: Start) -> None:
    away = f"postgresql://127.0.0.1:{free_ports(1)[0]}/nowhere"
    port = free_ports(1)[0]
    process = start(rabbit_stage.settings.changed(database_url=away, metrics_port=port))
    eventually(lambda: 'tp_mode{component="rescuer"} 1.0' in (_get(port, "/metrics")[1]), within_seconds=30)

    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 0


def test_a_dispatcher_shows_its_metrics_and_its_health(rabbit_stage: Stage, start: Start) -> None:
    port = free_ports(1)[0]
    (job,) = rabbit_stage.accept_due()
    start(rabbit_stage.settings.changed(metrics_port=port))
    rabbit_stage.delivers([job])

    assert _get(port, "/livez") == (200, "ok\n")
    assert 'tp_jobs_released_total{gate="time"} 1.0' in _get(port, "/metrics")[1]
    assert _get(port, "/anything")[0] == 404


def test_a_metrics_port_in_use_is_one_clear_line(rabbit_stage: Stage, start: Start) -> None:
    port = free_ports(1)[0]
    settings = rabbit_stage.settings.changed(metrics_port=port)
    start(settings)
    eventually(lambda: _get(port, "/livez")[0] == 200, within_seconds=30)

    second = start(settings)
    _, errors = second.communicate(timeout=60)

    assert second.returncode != 0
    assert f"the metrics port {port} cannot be used" in errors
    assert "Traceback" not in errors


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (URLError, ConnectionError) as error:
        return 0, str(error)
