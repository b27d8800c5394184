"""What a worker survives: killed children, a stopped or frozen store, a lost broker, and being told to stop."""

import os
import signal
import subprocess
from datetime import datetime
from functools import partial
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from taskplatform.servers import Postgres, RabbitMQ
from taskplatform.servers.process import Process
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.faults


def children_of(worker: Process) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(worker.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def more_ended(bench: Bench, least: int) -> bool:
    return bench.count("finished_jobs") > least


def test_jobs_of_killed_children_are_tried_again_and_no_other(amqp_bench: Bench) -> None:
    worker = amqp_bench.worker()
    ids = amqp_bench.submit_many([("nap", [0.004])] * 800)
    kills = 0
    while amqp_bench.count("finished_jobs") < 600 and kills < 4:
        done = amqp_bench.count("finished_jobs")
        os.kill(children_of(worker)[0], signal.SIGKILL)
        kills += 1
        eventually(partial(more_ended, amqp_bench, done + 50), within_seconds=20)

    eventually(lambda: amqp_bench.release_due() or amqp_bench.count("finished_jobs") == 800, within_seconds=30)
    amqp_bench.all_succeed(len(ids), within_seconds=30, releasing=True)

    crashed = amqp_bench.rows("SELECT count(*) AS n FROM attempts WHERE ended = 'crashed'")[0]["n"]
    assert crashed <= kills
    assert amqp_bench.rows("SELECT count(*) AS n FROM finished_jobs WHERE attempt > 1")[0]["n"] == crashed


def test_a_stopping_worker_leaves_nothing_running_and_loses_nothing(amqp_bench: Bench) -> None:
    worker = amqp_bench.worker()
    ids = amqp_bench.submit_many([("nap", [0.02])] * 400)
    eventually(lambda: amqp_bench.count("finished_jobs") > 20, within_seconds=20)

    os.kill(worker.pid, signal.SIGTERM)
    status = worker.wait(20)

    assert status == 0
    assert amqp_bench.count("jobs", "running") == 0
    assert amqp_bench.leases() == set()
    assert (
        amqp_bench.rows("SELECT count(*) AS n FROM attempts WHERE ended NOT IN ('succeeded', 'released')")[0]["n"] == 0
    )
    amqp_bench.worker()
    amqp_bench.all_succeed(len(ids), within_seconds=40, releasing=True)


def test_a_job_that_outlasts_the_drain_is_given_back_uncharged(amqp_bench: Bench) -> None:
    worker = amqp_bench.worker(worker_drain_seconds=0.5)
    job_id = amqp_bench.submit("nap", 60)
    eventually(lambda: amqp_bench.job(job_id)["state"] == "running", within_seconds=20)

    os.kill(worker.pid, signal.SIGTERM)

    assert worker.wait(20) == 0
    row = amqp_bench.job(job_id)
    assert (row["state"], row["failures"], row["crashes"]) == ("retrying", 0, 0)
    assert amqp_bench.attempts(job_id) == [(1, "released")]


def test_children_die_with_their_parent(amqp_bench: Bench) -> None:
    worker = amqp_bench.worker()
    children = children_of(worker)

    os.kill(worker.pid, signal.SIGKILL)

    assert children
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), within_seconds=30)


def test_everything_ends_once_though_postgres_restarts(amqp_bench: Bench, postgres: Postgres) -> None:
    amqp_bench.worker()
    ids = amqp_bench.submit_many([("nap", [0.002])] * 1500)
    eventually(lambda: amqp_bench.count("finished_jobs") > 100, within_seconds=20)

    postgres.kill()
    postgres.start()

    amqp_bench.all_succeed(len(ids), within_seconds=60)
    assert amqp_bench.rows("SELECT DISTINCT attempt FROM finished_jobs") == [{"attempt": 1}]


def test_terminated_store_connections_change_nothing(amqp_bench: Bench) -> None:
    amqp_bench.worker()
    ids = amqp_bench.submit_many([("nap", [0.002])] * 1000)
    with psycopg.connect(amqp_bench.dsn, autocommit=True) as connection:
        for least in (100, 300, 500, 700):
            eventually(partial(more_ended, amqp_bench, least), within_seconds=20)
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    amqp_bench.all_succeed(len(ids), within_seconds=60)
    assert amqp_bench.rows("SELECT DISTINCT attempt FROM finished_jobs") == [{"attempt": 1}]


def test_everything_ends_once_though_connections_to_the_broker_are_closed(
    amqp_bench: Bench, rabbitmq: RabbitMQ
) -> None:
    amqp_bench.worker()
    ids = amqp_bench.submit_many([("nap", [0.002])] * 2000)
    for least in (200, 900):
        eventually(partial(more_ended, amqp_bench, least), within_seconds=30)
        rabbitmq.control("close_all_connections", "a test")

    amqp_bench.all_succeed(len(ids), within_seconds=60)
    assert amqp_bench.rows("SELECT DISTINCT attempt FROM finished_jobs") == [{"attempt": 1}]


def test_the_lease_is_kept_while_the_broker_is_away_and_the_work_goes_on_after_its_restart(
    fragile_bench: tuple[Bench, RabbitMQ],
) -> None:
    bench, rabbitmq = fragile_bench
    bench.worker(lease_seconds=2.0, lease_renew_seconds=0.5)
    ids = bench.submit_many([("nap", [0.002])] * 1500)
    # Seen once after a kill in the first second: RabbitMQ 3.10 came back with a queue whose consumers all got 541.
    eventually(lambda: bench.count("finished_jobs") > 500, within_seconds=20)

    rabbitmq.kill()
    claimed = eventually(lambda: bench.count("jobs", "running") == 0, within_seconds=20)
    before = lease_until(bench)
    eventually(lambda: (lease_until(bench) - before).total_seconds() > 2.5, within_seconds=30)
    rabbitmq.start()

    assert claimed
    bench.all_succeed(len(ids), within_seconds=90)
    assert bench.rows("SELECT DISTINCT attempt FROM finished_jobs") == [{"attempt": 1}]
    alive = bench.rows("SELECT lease_until > now() AS alive FROM workers")
    assert alive == [{"alive": True}]


def lease_until(bench: Bench) -> datetime:
    (lease,) = bench.rows("SELECT lease_until FROM workers")
    found: datetime = lease["lease_until"]
    return found


def expect_to_drain(bench: Bench, worker: Process, running: UUID, marker: Path) -> None:
    """Tell a worker to stop, let what it runs end, and see that both end well."""
    os.kill(worker.pid, signal.SIGTERM)
    eventually(lambda: "draining" in worker.log_tail())
    marker.touch()

    assert worker.wait(20) == 0
    assert bench.job(running)["state"] == "succeeded"
    assert bench.attempts(running) == [(1, "succeeded")]
    assert bench.leases() == set()


def test_a_worker_that_is_told_to_stop_while_the_broker_is_away_ends_what_it_runs(
    fragile_bench: tuple[Bench, RabbitMQ], tmp_path: Path
) -> None:
    bench, rabbitmq = fragile_bench
    worker, marker = bench.worker(worker_processes=1), tmp_path / "marker"
    running = bench.submit("wait_for", str(marker))
    bench.reached(running, "running")
    rabbitmq.kill()
    eventually(lambda: "the broker cannot be reached" in worker.log_tail())

    expect_to_drain(bench, worker, running, marker)


def test_a_worker_that_is_told_to_stop_while_the_broker_stands_still_ends_what_it_runs(
    amqp_bench: Bench, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    worker, marker = amqp_bench.worker(worker_processes=1), tmp_path / "marker"
    running = amqp_bench.submit("wait_for", str(marker))
    amqp_bench.reached(running, "running")

    rabbitmq.process.freeze()
    try:
        expect_to_drain(amqp_bench, worker, running, marker)
    finally:
        rabbitmq.process.thaw()


def test_a_message_delivered_twice_runs_once(amqp_bench: Bench) -> None:
    ids = amqp_bench.submit_many([("noop", [number]) for number in range(200)])
    amqp_bench.publish_again(ids)
    amqp_bench.worker()

    amqp_bench.all_succeed(len(ids), within_seconds=20)
    eventually(lambda: amqp_bench.depth("jobs.default.normal") == 0)
    assert amqp_bench.count("attempts") == 200


def test_a_frozen_worker_starts_nothing_that_was_taken_back(amqp_bench: Bench, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    worker = amqp_bench.worker(worker_processes=1, lease_seconds=1.0, lease_renew_seconds=0.3)
    amqp_bench.submit_many([("note", [str(notes), "warm", 0.02])] * 10)
    eventually(lambda: amqp_bench.count("finished_jobs") == 10, within_seconds=20)
    wanted: list[tuple[str, list[object]]] = [("note", [str(notes), f"job {number}", 0.5]) for number in range(5)]
    ids = amqp_bench.submit_many(wanted)
    eventually(lambda: "job" in notes.read_text(), within_seconds=20)

    worker.freeze()
    eventually(lambda: amqp_bench.rescue() or amqp_bench.count("jobs", "running") == 0, within_seconds=20)
    worker.thaw()
    amqp_bench.all_succeed(len(ids) + 10, within_seconds=40, releasing=True)

    started = [line for line in notes.read_text().splitlines() if line.startswith("job")]
    assert len(started) - len(ids) <= 1
