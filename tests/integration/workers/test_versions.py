"""Old and new workers side by side: no job of a newer version runs on an older worker, and none is lost or failed."""

import os
import signal
from collections.abc import Callable

import httpx2
import msgspec
import pytest

from taskplatform.servers import free_ports
from taskplatform.servers.process import Process
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

MODULES = {version: (f"tests.integration.workers.version_{name}",) for version, name in ((1, "one"), (2, "two"))}


def start(bench: Bench, version: int, *, kind: str = "prefork") -> Process:
    return bench.worker(task_modules=MODULES[version], worker_kind=kind)


def submit(bench: Bench, version: int, jobs: int) -> None:
    bench.submit_many([("invoice", [number]) for number in range(jobs)], task_version=version)


def stop(worker: Process) -> None:
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(20) == 0


def dispatch_until(bench: Bench, reached: Callable[[], bool]) -> None:
    """Queue what is due until something has happened."""

    def look() -> bool:
        bench.release_due()
        return reached()

    eventually(look, within_seconds=30)


def which_code_ran(bench: Bench) -> dict[tuple[int, int], int]:
    """Count the jobs by their version and that of the code that ran them."""
    counts: dict[tuple[int, int], int] = {}
    for row in bench.rows("SELECT task_version, result FROM finished_jobs WHERE state = 'succeeded'"):
        ran = row["task_version"], msgspec.json.decode(row["result"])["code"]
        counts[ran] = counts.get(ran, 0) + 1
    return counts


@pytest.mark.parametrize("kind", ["prefork", pytest.param("async", marks=pytest.mark.long)])
def test_workers_are_replaced_one_by_one_under_load(amqp_bench: Bench, kind: str) -> None:
    bench = amqp_bench
    olds = [start(bench, 1, kind=kind), start(bench, 1, kind=kind)]
    submit(bench, 1, 300)
    news = [start(bench, 2, kind=kind)]
    submit(bench, 2, 300)
    submit(bench, 1, 100)
    dispatch_until(bench, lambda: bench.count("finished_jobs") > 200)
    stop(olds[0])
    news.append(start(bench, 2, kind=kind))
    submit(bench, 2, 200)
    dispatch_until(bench, lambda: bench.count("finished_jobs") > 500)
    stop(olds[1])

    bench.all_succeed(900, within_seconds=120, releasing=True)

    ran = which_code_ran(bench)
    assert ran[2, 2] == 500
    assert ran.get((1, 1), 0) + ran.get((1, 2), 0) == 400
    assert (2, 1) not in ran
    ends = {row["ended"] for row in bench.rows("SELECT DISTINCT ended FROM attempts")}
    assert ends <= {"succeeded", "released"}
    assert bench.rows("SELECT count(*) AS n FROM finished_jobs WHERE failures + crashes > 0") == [{"n": 0}]
    assert bench.count("dead_letters") == 0


def test_a_job_that_only_older_workers_could_run_waits_and_says_for_what(amqp_bench: Bench) -> None:
    (port,) = free_ports(1)
    amqp_bench.worker(task_modules=MODULES[1], metrics_port=port)
    job_id = amqp_bench.submit("invoice", 7, task_version=2)

    row = amqp_bench.reached(job_id, "retrying")

    assert row["error"]["type"] == "UnknownVersion"
    assert "needs version 2 of 'invoice'" in row["error"]["message"]
    assert (row["failures"], row["crashes"]) == (0, 0)
    amqp_bench.rows("UPDATE jobs SET passes = 19 RETURNING id")
    dispatch_until(amqp_bench, lambda: amqp_bench.job(job_id)["state"] == "dead")
    row = amqp_bench.job(job_id)
    assert (row["reason"], row["failures"]) == ("unknown_version", 0)
    assert amqp_bench.rows("SELECT reason FROM dead_letters") == [{"reason": "unknown_version"}]
    amqp_bench.ended(amqp_bench.submit("invoice", 8))
    shown = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'tp_job_wait_seconds_count{pool="default",priority="normal"} 1.0' in shown
    assert 'tp_jobs_claimed_total{pool="default"} 1.0' in shown


def test_the_row_decides_although_old_code_wrote_the_message(amqp_bench: Bench) -> None:
    job_id = amqp_bench.submit("invoice", 7)
    amqp_bench.rows("UPDATE jobs SET task_version = 2 RETURNING id")
    start(amqp_bench, 1)

    row = amqp_bench.reached(job_id, "retrying")

    assert row["error"]["type"] == "UnknownVersion"
