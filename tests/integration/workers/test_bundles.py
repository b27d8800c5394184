"""Jobs that came in one message: each has an end of its own, and the message is settled after the last."""

import json
import os
import signal

import psycopg
import pytest

from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually


def is_over(bench: Bench) -> bool:
    """Tell whether no message is left, in the queue or with a worker that was told to stop."""
    for worker in bench.workers:
        worker.stop()
    return [bench.depth(f"jobs.default.{queue}") for queue in ("normal", "dead")] == [0, 0]


@pytest.mark.parametrize("bench_name", ["worked_bench", "redis_bench"])
def test_thousands_of_bundled_jobs_run_once_each(request: pytest.FixtureRequest, bench_name: str) -> None:
    bench: Bench = request.getfixturevalue(bench_name)
    if not bench.workers:
        bench.worker()

    ids = bench.submit_many([("noop", [number]) for number in range(3000)], bundle_jobs=100)

    eventually(lambda: bench.count("finished_jobs") == len(ids), within_seconds=30)
    results = bench.rows("SELECT id, state, result, attempt FROM finished_jobs")
    assert {(row["id"], row["state"], row["result"], row["attempt"]) for row in results} == {
        (job_id, "succeeded", str(number), 1) for number, job_id in enumerate(ids)
    }
    assert bench.count("attempts") == len(ids)


def test_jobs_that_are_cancelled_ended_or_come_again_hold_no_bundle_up(amqp_bench: Bench) -> None:
    ids = amqp_bench.submit_many([("noop", [number]) for number in range(40)], bundle_jobs=40)
    amqp_bench.cancel(ids[7])
    amqp_bench.publish_again(ids[:20])
    amqp_bench.publish_again([ids[3], ids[3]])

    amqp_bench.worker()

    eventually(lambda: amqp_bench.whereabouts() == {"succeeded": 39, "cancelled": 1}, within_seconds=20)
    assert amqp_bench.count("attempts") == 39
    assert is_over(amqp_bench)


def test_a_job_that_kills_its_child_is_blamed_alone(worked_bench: Bench) -> None:
    ids = worked_bench.submit_many([("context", [9 if number == 11 else 0]) for number in range(40)], bundle_jobs=40)

    eventually(lambda: worked_bench.count("finished_jobs") == 39, within_seconds=20)

    eventually(lambda: worked_bench.attempts(ids[11]) == [(1, "crashed")], within_seconds=20)
    assert worked_bench.rows("SELECT DISTINCT state, attempt, crashes FROM finished_jobs") == [
        {"state": "succeeded", "attempt": 1, "crashes": 0}
    ]


def test_a_worker_killed_amid_a_bundle_loses_none_of_its_jobs(amqp_bench: Bench) -> None:
    worker = amqp_bench.worker(lease_seconds=1.0, lease_renew_seconds=0.3)
    ids = amqp_bench.submit_many([("nap", [0.01])] * 200, bundle_jobs=100)
    eventually(lambda: amqp_bench.count("finished_jobs") > 20, within_seconds=20)

    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: amqp_bench.rescue() or amqp_bench.count("jobs", "running") == 0, within_seconds=20)
    suspects = amqp_bench.rows("SELECT count(*) AS n FROM jobs WHERE suspect")[0]["n"]
    amqp_bench.worker()
    amqp_bench.all_succeed(len(ids), within_seconds=30, releasing=True)

    assert 0 < suspects < 100
    rows = amqp_bench.rows("SELECT ended, count(*) AS n, count(DISTINCT job_id) AS jobs FROM attempts GROUP BY ended")
    ends = {row["ended"]: (row["n"], row["jobs"]) for row in rows}
    # A suspect that comes again in its old bundle is given back: it runs alone, when its own message has come.
    ends.pop("released", None)
    assert ends == {"succeeded": (200, 200), "lost": (suspects, suspects)}
    assert is_over(amqp_bench)


@pytest.mark.parametrize("bench_name", ["amqp_bench", "redis_bench"])
def test_a_worker_that_stops_amid_a_bundle_leaves_the_rest_to_others(
    request: pytest.FixtureRequest, bench_name: str
) -> None:
    bench: Bench = request.getfixturevalue(bench_name)
    worker = bench.worker(worker_processes=1)
    ids = bench.submit_many([("nap", [0.02])] * 60, bundle_jobs=60)
    eventually(lambda: bench.count("finished_jobs") > 10, within_seconds=20)

    os.kill(worker.pid, signal.SIGTERM)

    assert worker.wait(20) == 0
    assert bench.count("jobs", "running") == 0
    assert 0 < bench.count("jobs") < len(ids)
    assert bench.rows("SELECT * FROM attempts WHERE ended NOT IN ('succeeded', 'released')") == []
    bench.worker()
    bench.all_succeed(len(ids), within_seconds=30, releasing=True)
    assert bench.rows("SELECT count(*) AS n FROM attempts WHERE ended = 'succeeded'")[0]["n"] == len(ids)
    assert is_over(bench)


def test_a_bundle_with_a_claim_that_postgres_refuses_is_rejected_when_its_other_jobs_are_over(
    amqp_bench: Bench,
) -> None:
    with psycopg.connect(amqp_bench.dsn) as connection:
        connection.execute(
            "ALTER TABLE jobs ADD CONSTRAINT unlucky CHECK (state <> 'running' OR body <> '[[7],{},{}]')"
        )
    worker = amqp_bench.worker()

    ids = amqp_bench.submit_many([("noop", [number]) for number in range(40)], bundle_jobs=40)

    eventually(lambda: amqp_bench.depth("jobs.default.dead") == 1, within_seconds=20)
    assert amqp_bench.whereabouts() == {"succeeded": 39, "queued": 1}
    assert amqp_bench.depth("jobs.default.normal") == 0
    told = [json.loads(line) for line in worker.command.log.read_text().splitlines() if "refused a value" in line]
    assert [line["job_id"] for line in told if line["jobs"] == 1] == [str(ids[7])]


def test_slow_jobs_that_come_singly_fill_a_worker_beside_bundles_and_make_no_hoard_of_them(amqp_bench: Bench) -> None:
    slow = amqp_bench.submit_many([("async_slow", [60])] * 150)
    quick = amqp_bench.submit_many([("async_quick", [number]) for number in range(1000)], bundle_jobs=100)
    amqp_bench.submit_many([("async_slow", [60])] * 8000, bundle_jobs=100)

    amqp_bench.worker(
        worker_kind="async",
        task_modules=("tests.integration.workers.bundled_jobs",),
        worker_concurrency_jobs=200,
    )

    eventually(lambda: amqp_bench.count("finished_jobs", "succeeded") == len(quick), within_seconds=20)
    eventually(lambda: amqp_bench.count("jobs", "running") == 200, within_seconds=20)
    states = amqp_bench.rows("SELECT DISTINCT state FROM jobs WHERE id = ANY (%s)", slow)
    assert states == [{"state": "running"}]
    assert amqp_bench.depth("jobs.default.normal") > 55
