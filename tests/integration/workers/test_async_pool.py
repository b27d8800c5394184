"""An asynchronous worker: thousands of coroutines in one process, and threads for what would block them."""

import os
import signal
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from taskplatform.servers import Postgres, free_ports
from taskplatform.servers.process import Process
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

Start = Callable[..., Process]


@pytest.fixture
def start(amqp_bench: Bench) -> Start:
    """Start an asynchronous worker on RabbitMQ."""
    return lambda **changes: _start(amqp_bench, **changes)


@pytest.fixture(scope="module")
def started(lasting_bench: Bench) -> Bench:
    """A bench with one asynchronous worker, which every test leaves as it found it."""
    _start(lasting_bench)
    return lasting_bench


def _start(bench: Bench, **changes: Any) -> Process:
    return bench.worker(worker_kind="async", task_modules=("tests.integration.workers.async_jobs",), **changes)


@pytest.mark.parametrize("bench_name", ["amqp_bench", "redis_bench"])
def test_two_thousand_coroutines_run_once_each(request: pytest.FixtureRequest, bench_name: str) -> None:
    bench: Bench = request.getfixturevalue(bench_name)
    _start(bench)

    ids = bench.submit_many([("async_noop", [number]) for number in range(2000)])

    eventually(lambda: bench.count("finished_jobs") == 2000, within_seconds=60)
    results = bench.rows("SELECT id, state, result, attempt FROM finished_jobs")
    assert {(row["id"], row["state"], row["result"], row["attempt"]) for row in results} == {
        (job_id, "succeeded", str(number), 1) for number, job_id in enumerate(ids)
    }
    assert bench.count("attempts") == 2000
    eventually(lambda: bench.depth("jobs.default.normal") == 0)


@pytest.mark.parametrize("task", ["async_crowd", "crowd"])
def test_as_many_jobs_overlap_as_may_run_at_once_and_no_more(
    amqp_bench: Bench, start: Start, tmp_path: Path, task: str
) -> None:
    start(worker_concurrency_jobs=200)
    most = tmp_path / "most"

    amqp_bench.submit_many([(task, [str(most), 0.2])] * 500)

    amqp_bench.all_succeed(500, within_seconds=60)
    assert 100 < int(most.read_text()) <= 200


def test_a_blocking_function_holds_no_coroutine_back(started: Bench, tmp_path: Path) -> None:
    file = tmp_path / "file"
    waiting = started.submit("until_there", str(file))
    started.reached(waiting, "running")

    started.ended(started.submit("async_leave", str(file), "from a coroutine"))

    assert started.ended(waiting)["result"] == '"from a coroutine"'


def test_a_worker_whose_loop_is_blocked_is_not_ready_and_keeps_its_jobs(
    amqp_bench: Bench, start: Start, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    start(metrics_port=port, lease_seconds=2.0, lease_renew_seconds=0.5)
    eventually(lambda: _readiness(port) == 200, within_seconds=20)
    file = tmp_path / "file"

    blocking = amqp_bench.submit("async_block", str(file))

    eventually(lambda: _readiness(port) == 503, within_seconds=20)
    assert amqp_bench.rescue() == 0
    file.write_text("go on")
    assert amqp_bench.ended(blocking)["attempt"] == 1
    eventually(lambda: _readiness(port) == 200, within_seconds=20)


def _readiness(port: int) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    finally:
        connection.close()


def test_each_kind_of_task_knows_its_job(started: Bench) -> None:
    coroutine, thread, inline = (started.submit(name) for name in ("async_whoami", "whoami", "inline_whoami"))

    assert f'"id":"{coroutine}"' in started.ended(coroutine)["result"]
    assert f'{{"id":"{thread}","thread":"job-' in started.ended(thread)["result"]
    assert started.ended(inline)["result"] == f'{{"id":"{inline}","thread":"event-loop"}}'


def test_celery_tasks_run_beside_the_others(started: Bench) -> None:
    row = started.ended(started.submit("tests.integration.workers.async_jobs.plain_double", 21))

    assert row["result"] == "42"


@pytest.mark.parametrize(
    ("task", "trouble", "part"),
    [
        ("async_boom", "error", "no such luck"),
        ("async_hopeless", "hopeless", "nothing will help"),
        ("async_quit", "error", "3"),
        ("async_no_json", "bad_result", "no JSON form"),
    ],
)
def test_whatever_a_coroutine_does_it_ends_with_a_reason(started: Bench, task: str, trouble: str, part: str) -> None:
    row = started.ended(started.submit(task, max_attempts=1))

    assert (row["state"], row["error"]["trouble"]) == ("dead", trouble)
    assert part in row["error"]["message"]


@pytest.mark.parametrize("task", ["async_overrun", "async_hang"])
def test_a_time_limit_cancels_a_coroutine(started: Bench, tmp_path: Path, task: str) -> None:
    marker = tmp_path / "marker"

    row = started.ended(started.submit(task, str(marker), max_attempts=1))

    assert marker.read_text() == "cancelled"
    assert (row["state"], row["error"]["trouble"]) == ("dead", "timeout")


@pytest.mark.parametrize(("task", "args"), [("async_stubborn", []), ("hang", ["marker"])])
def test_what_a_hard_limit_cannot_stop_is_left_behind(
    amqp_bench: Bench, start: Start, tmp_path: Path, task: str, args: list[str]
) -> None:
    start(worker_concurrency_jobs=2)
    job_id = amqp_bench.submit(task, *(str(tmp_path / name) for name in args), max_attempts=1)

    row = amqp_bench.ended(job_id)
    amqp_bench.submit_many([("async_nap", [0.01])] * 10)

    assert (row["state"], row["error"]["trouble"]) == ("dead", "timeout")
    eventually(lambda: amqp_bench.count("finished_jobs", "succeeded") == 10, within_seconds=20)
    assert amqp_bench.attempts(job_id) == [(1, "failed")]


def test_a_worker_full_of_what_cannot_be_stopped_ends(amqp_bench: Bench, start: Start, tmp_path: Path) -> None:
    worker = start(worker_concurrency_jobs=1, worker_drain_seconds=1.0)

    row = amqp_bench.ended(amqp_bench.submit("hang", str(tmp_path / "marker"), max_attempts=1))

    assert row["error"]["trouble"] == "timeout"
    assert worker.wait(20) == 1
    assert amqp_bench.leases() == set()


@pytest.mark.parametrize("task", ["async_wait", "wait_in_thread"])
def test_a_cancelled_job_makes_room(amqp_bench: Bench, start: Start, tmp_path: Path, task: str) -> None:
    start(worker_concurrency_jobs=2)
    marker = tmp_path / "marker"
    job_id = amqp_bench.submit(task, str(marker))
    eventually(marker.exists, within_seconds=20)

    amqp_bench.cancel(job_id)

    eventually(lambda: marker.read_text() == ("cancelled" if task == "async_wait" else "started"), within_seconds=30)
    eventually(lambda: amqp_bench.leases_running() == 0, within_seconds=30)
    assert amqp_bench.job(job_id)["state"] == "cancelled"


@pytest.mark.faults
def test_a_stopping_worker_lets_running_coroutines_end(amqp_bench: Bench, start: Start) -> None:
    worker = start(worker_concurrency_jobs=20)
    amqp_bench.submit_many([("async_nap", [0.05])] * 400)
    eventually(lambda: amqp_bench.count("finished_jobs") > 20, within_seconds=20)

    os.kill(worker.pid, signal.SIGTERM)

    assert worker.wait(20) == 0
    assert amqp_bench.count("jobs", "running") == 0
    assert amqp_bench.leases() == set()
    ends = amqp_bench.rows("SELECT DISTINCT ended FROM attempts")
    assert {row["ended"] for row in ends} <= {"succeeded", "released"}


@pytest.mark.faults
@pytest.mark.parametrize("task", ["async_wait", "wait_in_thread", "async_wait_in_thread"])
def test_a_job_that_outlasts_the_drain_is_given_back_uncharged(
    amqp_bench: Bench, start: Start, tmp_path: Path, task: str
) -> None:
    worker = start(worker_drain_seconds=0.5)
    marker = tmp_path / "marker"
    job_id = amqp_bench.submit(task, str(marker))
    eventually(marker.exists, within_seconds=20)

    os.kill(worker.pid, signal.SIGTERM)

    assert worker.wait(20) == 0
    row = amqp_bench.job(job_id)
    assert (row["state"], row["failures"], row["crashes"]) == ("retrying", 0, 0)
    assert amqp_bench.attempts(job_id) == [(1, "released")]
    assert marker.read_text() == ("cancelled" if task == "async_wait" else "started")


@pytest.mark.faults
def test_a_killed_worker_loses_nothing_and_its_jobs_run_alone_next(
    amqp_bench: Bench, start: Start, tmp_path: Path
) -> None:
    # So many at once are suspects afterwards, which run one after the other.
    start(lease_seconds=2.0, lease_renew_seconds=0.5, worker_concurrency_jobs=20)
    wanted: list[tuple[str, list[Any]]] = [("async_nap", [0.05])] * 100
    killer = ("async_kill_worker", [str(tmp_path / "marker")])
    ids = amqp_bench.submit_many([*wanted[:50], killer, *wanted[50:]])
    eventually((tmp_path / "marker").exists, within_seconds=20)

    eventually(lambda: amqp_bench.rescue() or amqp_bench.count("jobs", "running") == 0, within_seconds=30)
    suspects = amqp_bench.count("jobs", "retrying")
    start()
    amqp_bench.all_succeed(len(ids), within_seconds=60, releasing=True)

    assert suspects > 1
    assert amqp_bench.rows("SELECT DISTINCT crashes, failures FROM finished_jobs") == [{"crashes": 0, "failures": 0}]


@pytest.mark.faults
def test_everything_ends_once_though_postgres_restarts(amqp_bench: Bench, start: Start, postgres: Postgres) -> None:
    start(worker_concurrency_jobs=20)
    amqp_bench.submit_many([("async_nap", [0.02])] * 1500)
    eventually(lambda: amqp_bench.count("finished_jobs") > 100, within_seconds=20)

    postgres.kill()
    postgres.start()

    amqp_bench.all_succeed(1500, within_seconds=60)
    assert amqp_bench.rows("SELECT DISTINCT attempt FROM finished_jobs") == [{"attempt": 1}]
