"""Celery code as people have it: shared tasks, delay, results, retries and chains."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import chain, group

from taskplatform.errors import InvalidInput
from taskplatform.ids import lowest_id_at
from taskplatform.settings import environment_of
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually
from tests.integration.workers import jobs
from workers.app import new_app
from workers.backend import JobFailed

_ROOT = Path(__file__).parents[3]


@pytest.fixture
def app(worked_bench: Bench) -> Iterator[Any]:
    """The app of a program that hands jobs in."""
    app: Any = new_app(worked_bench.settings)
    yield app
    app.backend.close()
    app.close()


def test_a_shared_task_runs_and_its_result_comes_back(app: Any, worked_bench: Bench) -> None:
    result = jobs.plain_add.delay(2, 3)

    assert result.get(timeout=20, interval=0.05) == 5
    assert result.state == "SUCCESS"
    assert worked_bench.rows("SELECT task, tenant FROM finished_jobs") == [
        {"task": "tests.integration.workers.jobs.plain_add", "tenant": "default"}
    ]


def test_a_shared_task_has_an_id_that_tells_its_time(app: Any) -> None:
    before = lowest_id_at(time.time_ns() // 1_000_000)

    result = jobs.plain_add.delay(2, 3)

    assert UUID(result.id) >= before
    # The next test has the worker without jobs.
    assert result.get(timeout=20, interval=0.05) == 5


def test_an_id_that_is_no_uuid_is_refused_where_it_is_given(app: Any) -> None:
    with pytest.raises(InvalidInput, match="my-own-id"):
        jobs.plain_add.apply_async((2, 3), task_id="my-own-id")


def test_a_shared_task_runs_on_redis(redis_bench: Bench) -> None:
    redis_bench.worker()
    app: Any = new_app(redis_bench.settings)

    assert jobs.plain_add.apply_async((4, 5)).get(timeout=20, interval=0.05) == 9

    app.backend.close()
    app.close()


def test_a_plain_task_that_raises_has_failed_as_in_celery(app: Any) -> None:
    result = jobs.plain_boom.delay()

    with pytest.raises(JobFailed, match="plain trouble"):
        result.get(timeout=20, interval=0.05)
    assert result.state == "FAILURE"
    assert "plain trouble" in str(result.traceback)


def test_retry_starts_another_attempt_after_its_countdown(app: Any, worked_bench: Bench) -> None:
    result = jobs.plain_retry.delay(0.05)

    for _ in range(2):
        eventually(worked_bench.release_due, within_seconds=20)
    assert result.get(timeout=20, interval=0.05) == 2
    ended = worked_bench.rows("SELECT number, ended FROM attempts ORDER BY number")
    assert [row["ended"] for row in ended] == ["failed", "failed", "succeeded"]


def test_retry_with_a_cause_starts_another_attempt(app: Any, worked_bench: Bench) -> None:
    result = jobs.plain_retry_for_a_cause.delay()

    for _ in range(2):
        eventually(worked_bench.release_due, within_seconds=20)
    assert result.get(timeout=20, interval=0.05) == 2


def test_autoretry_starts_another_attempt(app: Any, worked_bench: Bench, tmp_path: Path) -> None:
    result = jobs.plain_autoretry.delay(str(tmp_path / "tries"))

    for _ in range(2):
        eventually(worked_bench.release_due, within_seconds=20)
    assert result.get(timeout=20, interval=0.05) == "done"


def test_retry_raises_its_cause_when_no_retries_are_left(app: Any) -> None:
    result = jobs.plain_retry_in_vain.delay()

    with pytest.raises(JobFailed, match="gave up"):
        result.get(timeout=20, interval=0.05)


def test_a_countdown_is_waited_for_in_the_store(app: Any, worked_bench: Bench) -> None:
    result = jobs.plain_add.apply_async((1, 1), countdown=600)

    eventually(lambda: worked_bench.count("jobs", "scheduled") == 1, within_seconds=20)
    row = worked_bench.rows("SELECT due_at - created_at AS wait FROM jobs")[0]
    assert 580 < row["wait"].total_seconds() <= 601
    eventually(lambda: worked_bench.depth("jobs.default.normal") == 0)
    assert result.state == "PENDING"


def test_a_message_past_its_expiry_never_runs(app: Any, worked_bench: Bench) -> None:
    jobs.plain_add.apply_async((1, 1), expires=-5)

    eventually(lambda: worked_bench.count("jobs", "queued") == 1, within_seconds=20)
    eventually(lambda: worked_bench.depth("jobs.default.normal") == 0)
    assert worked_bench.count("attempts") == 0


def test_callbacks_and_chains_run_after_a_success(app: Any, worked_bench: Bench) -> None:
    result = chain(jobs.plain_add.s(1, 2), jobs.plain_add.s(3), jobs.plain_add.s(4)).apply_async()

    assert result.get(timeout=30, interval=0.05) == 10
    assert worked_bench.count("finished_jobs", "succeeded") == 3


def test_a_group_gives_all_results(app: Any) -> None:
    result = group(jobs.plain_add.s(number, number) for number in range(5)).apply_async()

    assert result.get(timeout=30, interval=0.05) == [0, 2, 4, 6, 8]


def test_a_platform_task_can_be_sent_by_name(app: Any) -> None:
    assert app.send_task("noop", (7,)).get(timeout=20, interval=0.05) == 7


def test_the_worker_answers_celerys_ping(app: Any, worked_bench: Bench) -> None:
    eventually(lambda: app.control.inspect(timeout=1.0).ping(), within_seconds=20)


def test_an_app_for_producers_comes_out_of_the_environment(worked_bench: Bench) -> None:
    program = (
        "from workers.app import app\n"
        "from tests.integration.workers.jobs import plain_add\n"
        "print(plain_add.delay(20, 22).get(timeout=20, interval=0.05))\n"
    )
    environment = {**os.environ, **environment_of(worked_bench.settings), "PYTHONPATH": str(_ROOT)}

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.strip() == "42", done.stderr
