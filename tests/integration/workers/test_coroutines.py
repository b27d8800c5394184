"""Tasks that are coroutines, in the child processes of a prefork worker."""

from pathlib import Path

import pytest

from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually


@pytest.fixture(scope="module")
def bench(lasting_bench: Bench) -> Bench:
    """A bench with one worker that knows the asynchronous tasks."""
    lasting_bench.worker(task_modules=("tests.integration.workers.async_jobs",))
    return lasting_bench


def test_a_coroutine_runs_to_its_end(bench: Bench) -> None:
    assert bench.ended(bench.submit("async_nap", 0.01))["result"] == '"rested"'


def test_a_coroutine_and_its_threads_know_their_job(bench: Bench) -> None:
    job_id = bench.submit("async_whoami")

    assert bench.ended(job_id)["result"] == f'{{"id":"{job_id}","attempt":1,"tenant":"acme"}}'


def test_an_error_in_a_coroutine_ends_its_attempt(bench: Bench) -> None:
    row = bench.ended(bench.submit("async_boom", max_attempts=1))

    assert (row["state"], row["error"]["type"], row["error"]["message"]) == (
        "dead",
        "builtins.ValueError",
        "no such luck",
    )


def test_a_soft_limit_cancels_the_coroutine(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    row = bench.ended(bench.submit("async_overrun", str(marker), max_attempts=1))

    assert marker.read_text() == "cancelled"
    assert (row["state"], row["error"]["trouble"]) == ("dead", "timeout")


def test_cancelling_the_job_cancels_the_coroutine(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    job_id = bench.submit("async_wait", str(marker))
    eventually(marker.exists, within_seconds=20)

    bench.cancel(job_id)

    eventually(lambda: marker.read_text() == "cancelled", within_seconds=30)
    assert bench.ended(bench.submit("async_noop", 7))["result"] == "7"
