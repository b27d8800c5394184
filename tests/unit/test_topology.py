"""Queues as data."""

import pytest

from taskplatform.errors import InvalidInput
from taskplatform.job import Priority
from taskplatform.topology import dead_queue, pool_of, queues, work_queue, work_queues


def test_a_pool_has_one_queue_for_each_priority_the_most_urgent_first() -> None:
    assert work_queues("video") == ["jobs.video.high", "jobs.video.normal", "jobs.video.low"]


def test_a_dead_letter_queue_is_declared_before_the_queues_that_point_at_it() -> None:
    assert [queue.name for queue in queues(["a"])] == ["jobs.a.dead", "jobs.a.high", "jobs.a.normal", "jobs.a.low"]


def test_a_pool_named_twice_is_declared_once() -> None:
    assert queues(["a", "b", "a"]) == queues(["a", "b"])


def test_work_queues_dead_letter_at_least_once() -> None:
    work = next(queue for queue in queues(["a"]) if queue.name == work_queue("a", Priority.NORMAL))

    assert work.arguments["x-queue-type"] == "quorum"
    assert work.arguments["x-dead-letter-strategy"] == "at-least-once"
    assert work.arguments["x-overflow"] == "reject-publish"
    assert work.arguments["x-dead-letter-routing-key"] == dead_queue("a")


def test_the_pool_can_be_read_out_of_a_queue() -> None:
    assert pool_of(work_queue("video", Priority.LOW)) == "video"


@pytest.mark.parametrize("pool", ["", "A", "a.b", "a b", "-a", "a" * 64, "ä"])
def test_a_malformed_pool_is_refused(pool: str) -> None:
    with pytest.raises(InvalidInput, match="is not a pool"):
        work_queue(pool, Priority.NORMAL)


@pytest.mark.parametrize("queue", ["celery", "jobs.a", "jobs.a.b.c", "work.a.high"])
def test_a_foreign_queue_has_no_pool(queue: str) -> None:
    with pytest.raises(InvalidInput):
        pool_of(queue)
