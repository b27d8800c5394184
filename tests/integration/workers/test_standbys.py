"""What a worker does about commits that may not have reached a standby."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.celery import Bench
from tests.fixtures.ghost import Ghost
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.faults

_QUEUE = "jobs.default.normal"


def waiting_for_standby(bench: Bench, statement: str) -> int:
    """Wait until a commit of a transaction that ended with this statement waits; gives the id of its backend."""
    query = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND strpos(query, %s) > 0"
    return int(eventually(lambda: bench.rows(query, statement), within_seconds=20)[0]["pid"])


@pytest.fixture(params=["pg_cancel_backend", "pg_terminate_backend"])
def job_that_waits_no_longer(
    request: pytest.FixtureRequest, amqp_bench: Bench, ghost: Ghost, tmp_path: Path
) -> Callable[[], None]:
    """Runs a job up to the commit of its end, which waits for the standby and is kept from waiting any longer."""

    def run() -> None:
        marker = tmp_path / "marker"
        job_id = amqp_bench.submit("wait_for", str(marker))
        amqp_bench.reached(job_id, "running")
        ghost.want()
        marker.touch()
        backend = waiting_for_standby(amqp_bench, "DELETE FROM jobs")
        amqp_bench.rows(f"SELECT {request.param}(%s)", backend)
        amqp_bench.ended(job_id)

    return run


def test_an_end_that_no_standby_has_is_not_acknowledged(
    amqp_bench: Bench, job_that_waits_no_longer: Callable[[], None]
) -> None:
    worker = amqp_bench.worker(lease_renew_seconds=30.0, lease_seconds=90.0)
    job_that_waits_no_longer()

    waiting_for_standby(amqp_bench, "pg_logical_emit_message")
    worker.kill()

    eventually(lambda: amqp_bench.depth(_QUEUE) == 1, within_seconds=20)


def test_the_work_goes_on_when_commits_reach_a_standby_again(
    amqp_bench: Bench, job_that_waits_no_longer: Callable[[], None], ghost: Ghost
) -> None:
    worker = amqp_bench.worker(lease_renew_seconds=30.0, lease_seconds=90.0)
    job_that_waits_no_longer()
    waiting_for_standby(amqp_bench, "pg_logical_emit_message")

    ghost.do_without()
    next_one = amqp_bench.submit("noop")

    assert amqp_bench.ended(next_one)["state"] == "succeeded"
    assert amqp_bench.rows("SELECT DISTINCT attempt, state FROM finished_jobs") == [
        {"attempt": 1, "state": "succeeded"}
    ]
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(20) == 0
    assert amqp_bench.depth(_QUEUE) == 0
