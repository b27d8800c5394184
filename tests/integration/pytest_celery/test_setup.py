"""The worker in pytest-celery's hands, as people test a Celery application of their own."""

from pathlib import Path
from typing import Any
from uuid import UUID

from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually
from tests.integration.workers import jobs


def rounds_until_ready(bench: Bench, result: Any) -> bool:
    """Do what a dispatcher does, and tell whether the job has ended."""
    bench.rescue()
    bench.release_due()
    return bool(result.ready())


def test_the_result_of_a_plain_task_comes_back(celery_setup: Any) -> None:
    assert jobs.plain_add.delay(2, 3).get(timeout=20, interval=0.05) == 5


def test_the_worker_answers_the_setups_ping(celery_setup: Any) -> None:
    replies = eventually(celery_setup.app.control.ping, within_seconds=20)

    assert [reply["ok"] for answer in replies for reply in answer.values()] == ["pong"]


def test_a_job_survives_the_kill_of_its_worker(celery_setup: Any, bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    result = celery_setup.app.send_task("wait_for", (str(marker),))
    eventually(lambda: result.state == "STARTED", within_seconds=20)

    celery_setup.worker.kill()
    celery_setup.worker.restart()
    marker.touch()

    eventually(lambda: rounds_until_ready(bench, result), within_seconds=60)
    assert result.get() == "there"
    assert bench.attempts(UUID(result.id)) == [(1, "lost"), (2, "succeeded")]
