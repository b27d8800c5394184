"""What becomes of jobs that fail, overrun, crash, or are cancelled."""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually


def test_a_failing_job_waits_for_its_backoff(worked_bench: Bench) -> None:
    job_id = worked_bench.submit("boom", "ValueError")

    row = worked_bench.reached(job_id, "retrying")

    assert row["failures"] == 1
    assert 50 < (row["due_at"] - row["started_at"]).total_seconds() <= 61
    assert (row["error"]["type"], row["error"]["message"]) == ("builtins.ValueError", "no such luck")
    assert "raise" in row["error"]["traceback"]
    assert worked_bench.attempts(job_id) == [(1, "failed")]


def test_an_error_that_its_policy_gives_up_on_kills_the_job_at_once(worked_bench: Bench) -> None:
    row = worked_bench.ended(worked_bench.submit("boom", "KeyError"))

    assert (row["state"], row["reason"], row["failures"]) == ("dead", "not_retryable", 1)


def test_the_last_attempt_ends_the_job(worked_bench: Bench) -> None:
    row = worked_bench.ended(worked_bench.submit("boom", "ValueError", max_attempts=1))

    assert (row["state"], row["reason"]) == ("dead", "attempts_exhausted")


def test_fail_is_never_retried(worked_bench: Bench) -> None:
    row = worked_bench.ended(worked_bench.submit("hopeless"))

    assert (row["state"], row["reason"], row["error"]["trouble"]) == ("dead", "not_retryable", "hopeless")


def test_retry_later_sets_the_time_of_the_next_attempt(worked_bench: Bench) -> None:
    row = worked_bench.reached(worked_bench.submit("later"), "retrying")

    assert 110 < (row["due_at"] - row["started_at"]).total_seconds() < 125


def test_arguments_that_do_not_fit_kill_the_job(worked_bench: Bench) -> None:
    row = worked_bench.ended(worked_bench.submit("noop", "not a number"))

    assert (row["state"], row["error"]["trouble"]) == ("dead", "hopeless")


def test_a_job_knows_its_id_attempt_and_tenant(worked_bench: Bench) -> None:
    job_id = worked_bench.submit("whoami")

    assert f'"id":"{job_id}","attempt":1,"tenant":"acme"' in worked_bench.ended(job_id)["result"]


def test_a_hard_limit_kills_the_job_and_charges_a_failure(worked_bench: Bench) -> None:
    job_id = worked_bench.submit("hang")

    row = worked_bench.reached(job_id, "retrying")

    assert (row["failures"], row["crashes"], row["error"]["trouble"]) == (1, 0, "timeout")
    assert worked_bench.attempts(job_id) == [(1, "failed")]


def test_a_soft_limit_is_raised_inside_the_job(worked_bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    row = worked_bench.ended(worked_bench.submit("overrun", str(marker), max_attempts=1))

    assert marker.read_text() == "told to stop"
    assert (row["state"], row["error"]["trouble"]) == ("dead", "timeout")


def test_a_job_that_kills_its_child_each_time_ends_as_poison(worked_bench: Bench) -> None:
    job_id = worked_bench.submit("kill_child")

    for _ in range(2):
        eventually(lambda: worked_bench.job(job_id)["state"] == "retrying", within_seconds=20)
        eventually(worked_bench.release_due, within_seconds=30)
    row = worked_bench.ended(job_id)

    assert (row["state"], row["reason"], row["crashes"], row["failures"]) == ("dead", "poison", 3, 0)
    assert worked_bench.attempts(job_id) == [(1, "crashed"), (2, "crashed"), (3, "crashed")]


def test_a_dying_child_is_blamed_on_the_job_it_ran_and_on_no_other(worked_bench: Bench, tmp_path: Path) -> None:
    worked_bench.submit_many([("noop", [0])] * 50)
    eventually(lambda: worked_bench.count("finished_jobs") == 50, within_seconds=20)

    wanted: list[tuple[str, list[Any]]] = [("noop", [number]) for number in range(300)]
    wanted[150] = ("kill_child_once", [str(tmp_path / "marker")])
    ids = worked_bench.submit_many(wanted)
    eventually(lambda: worked_bench.count("finished_jobs") == 50 + 299, within_seconds=30)

    others = worked_bench.rows("SELECT DISTINCT attempt, crashes, failures FROM finished_jobs")
    assert others == [{"attempt": 1, "crashes": 0, "failures": 0}]
    eventually(lambda: worked_bench.job(ids[150])["state"] in ("retrying", "succeeded"))
    assert worked_bench.attempts(ids[150])[0] == (1, "crashed")


@pytest.mark.parametrize(
    ("task", "args", "trouble", "part"),
    [
        ("quit_process", (), "error", "3"),
        ("exhaust", (), "error", "pretended"),
        ("unspeakable", (), "error", "whose text cannot be had"),
        ("odd_text", (), "error", "nul"),
        ("no_json", (), "bad_result", "no JSON form"),
        ("circular", (), "bad_result", "no JSON form"),
        ("surrogate_result", (), "bad_result", "no JSON form"),
        ("huge_result", (2_000_000,), "bad_result", "result_too_large"),
    ],
)
def test_whatever_a_job_does_it_ends_with_a_short_reason(
    worked_bench: Bench, task: str, args: tuple[object, ...], trouble: str, part: str
) -> None:
    row = worked_bench.ended(worked_bench.submit(task, *args, max_attempts=1))

    assert row["state"] == "dead"
    assert row["error"]["trouble"] == trouble
    assert part in row["error"]["message"]
    assert len(row["error"]["message"].encode()) <= 16 * 1024


def test_a_result_with_a_nul_is_kept_as_it_is(worked_bench: Bench) -> None:
    assert worked_bench.ended(worked_bench.submit("nul_result"))["result"] == '"a\\u0000b"'


def test_a_large_result_within_the_limit_is_kept(worked_bench: Bench) -> None:
    assert len(worked_bench.ended(worked_bench.submit("huge_result", 900_000))["result"]) == 900_002


def test_a_process_that_a_task_forked_answers_for_nobody(worked_bench: Bench) -> None:
    ids = worked_bench.submit_many([("fork_twice", [])] * 10)

    rows = [worked_bench.ended(job_id) for job_id in ids]

    assert {row["state"] for row in rows} == {"succeeded"}
    assert "0" not in {row["result"] for row in rows}
    assert {tuple(worked_bench.attempts(job_id)) for job_id in ids} == {((1, "succeeded"),)}


def test_a_cancelled_job_is_stopped(worked_bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    job_id = worked_bench.submit("ignores_cancel", str(marker))
    eventually(marker.exists, within_seconds=20)

    worked_bench.cancel(job_id)
    done = worked_bench.submit_many([("nap", [0.2])] * 4)

    for other in done:
        assert worked_bench.ended(other)["state"] == "succeeded"
    assert worked_bench.job(job_id)["state"] == "cancelled"
    eventually(lambda: worked_bench.leases_running() == 0, within_seconds=30)
