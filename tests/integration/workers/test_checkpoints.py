"""Long jobs go on where they were, whatever ended their worker or their process."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from taskplatform.servers import Postgres
from taskplatform.servers.process import Process
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

JOBS = ("tests.integration.workers.checkpoint_jobs",)
KINDS = ("prefork", "async")


def start(bench: Bench, **changes: Any) -> Process:
    return bench.worker(task_modules=JOBS, **changes)


def lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_of_a_worker_that_drains_go_on_elsewhere_at_once_and_uncharged(
    amqp_bench: Bench, tmp_path: Path, kind: str
) -> None:
    worker = start(amqp_bench, worker_kind=kind, worker_drain_seconds=60.0)
    files = {name: tmp_path / name for name in ("pages", "async_pages")}
    ids = {name: amqp_bench.submit(name, str(file), 5, 3, max_attempts=1) for name, file in files.items()}
    eventually(lambda: [len(lines(file)) for file in files.values()] == [3, 3], within_seconds=20)

    os.kill(worker.pid, signal.SIGTERM)

    assert worker.wait(20) == 0
    for job_id in ids.values():
        row = amqp_bench.job(job_id)
        assert (row["state"], row["failures"], row["crashes"], row["suspect"]) == ("retrying", 0, 0, False)
        assert row["checkpoint"] == '{"page":3}'
    start(amqp_bench, worker_kind=kind)
    amqp_bench.all_succeed(2, within_seconds=20, releasing=True)
    for name, job_id in ids.items():
        assert lines(files[name]) == ["1:1", "1:2", "1:3", "2:4", "2:5"]
        assert amqp_bench.attempts(job_id) == [(1, "released"), (2, "succeeded")]
        assert amqp_bench.job(job_id)["result"] == "5"


def test_a_job_whose_process_is_killed_goes_on_after_its_last_checkpoint(amqp_bench: Bench) -> None:
    start(amqp_bench)
    job_id = amqp_bench.submit("killed_once", 5, 3)

    amqp_bench.all_succeed(1, within_seconds=20, releasing=True)

    assert amqp_bench.job(job_id)["result"] == "[1,2,3,8,10]"
    assert amqp_bench.attempts(job_id) == [(1, "crashed"), (2, "succeeded")]


def test_an_attempt_that_lost_its_job_cannot_overwrite_the_checkpoint_of_the_next(
    amqp_bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "notes"
    first = start(amqp_bench, worker_processes=1, lease_seconds=1.0, lease_renew_seconds=0.3)
    job_id = amqp_bench.submit("saves_when_it_is_too_late", str(file))
    eventually(lambda: lines(file) == ["1:0"], within_seconds=20)
    first.freeze()
    eventually(amqp_bench.rescue, within_seconds=20)
    start(amqp_bench)
    amqp_bench.release_due()

    def runs_elsewhere() -> bool:
        # The broker hands messages to the frozen worker too, until it has its fill.
        amqp_bench.publish_again([job_id])
        return lines(file) == ["1:0", "2:0"]

    eventually(runs_elsewhere, within_seconds=20)

    first.thaw()

    refused = Path(f"{file}.refused")
    eventually(lambda: refused.exists() and "no longer holds" in refused.read_text(), within_seconds=20)
    row = amqp_bench.job(job_id)
    assert (row["state"], row["attempt"], row["checkpoint"]) == ("running", 2, '"the second"')


@pytest.mark.parametrize("kind", KINDS)
def test_bad_checkpoints_are_clear_errors_in_the_task(amqp_bench: Bench, kind: str) -> None:
    start(amqp_bench, worker_kind=kind)
    wanted = {
        ("bad_save", "large"): "the checkpoint has 70002 bytes, at most 65536 are kept",
        ("bad_save", "object"): "the checkpoint has no JSON form: ",
        ("bad_save", "nan"): "the checkpoint has no JSON form: it holds NaN or infinity",
        ("bad_save", "text"): "the checkpoint has no JSON form: ",
        ("bad_load",): "the checkpoint is not what is expected: Expected `int`, got `str` - at `$.page`",
    }
    ids = {amqp_bench.submit(task, *args): text for (task, *args), text in wanted.items()}
    blocking = amqp_bench.submit("blocking_save", max_attempts=1)

    for job_id, text in ids.items():
        row = amqp_bench.ended(job_id)
        assert (row["state"], row["reason"]) == ("dead", "not_retryable")
        assert row["error"]["message"].startswith(text)
    assert "await checkpoint.load_async()" in amqp_bench.ended(blocking)["error"]["message"]


def test_handing_back_while_the_worker_stays_is_a_failure_like_others(amqp_bench: Bench) -> None:
    start(amqp_bench)

    row = amqp_bench.ended(amqp_bench.submit("gives_up_without_reason", max_attempts=1))

    assert (row["state"], row["reason"], row["failures"]) == ("dead", "attempts_exhausted", 1)
    assert row["error"]["type"] == "taskplatform.task.HandBack"


def test_hundreds_of_coroutines_save_at_once(amqp_bench: Bench) -> None:
    start(amqp_bench, worker_kind="async")

    ids = amqp_bench.submit_many([("tally", [number]) for number in range(300)])

    amqp_bench.all_succeed(300, within_seconds=30)
    assert [amqp_bench.job(job_id)["result"] for job_id in ids[::50]] == [
        str(number * 10 + 4) for number in range(0, 300, 50)
    ]


def test_a_save_waits_for_a_postgres_that_is_away(amqp_bench: Bench, postgres: Postgres, tmp_path: Path) -> None:
    start(amqp_bench)
    end = tmp_path / "end"
    job_id = amqp_bench.submit("saves_until", str(end))
    eventually(lambda: (amqp_bench.job(job_id).get("checkpoint") or "0") > "1", within_seconds=20)

    postgres.kill()
    postgres.start()
    end.touch()

    row = amqp_bench.ended(job_id, within_seconds=40)
    assert (row["state"], row["result"]) == ("succeeded", "true")
    assert amqp_bench.attempts(job_id) == [(1, "succeeded")]
