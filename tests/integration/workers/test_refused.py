"""What a worker does about an outcome that Postgres refuses among others that it takes."""

import json

import psycopg
import pytest

from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

_JOBS = 200
_BAD = 130


@pytest.fixture
def sizes_refused(amqp_bench: Bench) -> list[int]:
    """How many jobs each refused turn concerned, when one result out of many is refused."""
    with psycopg.connect(amqp_bench.dsn) as connection:
        connection.execute(f"ALTER TABLE finished_jobs ADD CONSTRAINT unlucky CHECK (result <> '{_BAD}')".encode())
    worker = amqp_bench.worker()
    amqp_bench.submit_many([("noop", [number]) for number in range(_JOBS)])
    eventually(lambda: amqp_bench.count("finished_jobs") == _JOBS, within_seconds=30)
    lines = [line for line in worker.command.log.read_text().splitlines() if "refused a value of a turn" in line]
    return [json.loads(line)["jobs"] for line in lines]


def test_one_refused_outcome_among_many_costs_only_its_own_job(amqp_bench: Bench, sizes_refused: list[int]) -> None:
    (dead,) = amqp_bench.rows("SELECT state, reason, body, error FROM finished_jobs WHERE state <> 'succeeded'")

    assert max(sizes_refused) > 1
    assert (dead["state"], dead["reason"], json.loads(dead["body"])[0]) == ("dead", "not_retryable", [_BAD])
    assert json.loads(dead["error"])["trouble"] == "bad_result"
    assert "unlucky" in json.loads(dead["error"])["message"]


def test_what_was_refused_beside_others_is_settled_like_them(amqp_bench: Bench, sizes_refused: list[int]) -> None:
    ends = amqp_bench.rows("SELECT ended, count(*) AS n FROM attempts WHERE number = 1 GROUP BY ended ORDER BY ended")

    assert [(row["ended"], row["n"]) for row in ends] == [("failed", 1), ("succeeded", _JOBS - 1)]
    amqp_bench.workers[0].stop()
    assert [amqp_bench.depth(f"jobs.default.{queue}") for queue in ("normal", "dead")] == [0, 0]
