"""What a worker takes in of the messages that it gets, and what it rejects."""

from collections.abc import Mapping
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from taskplatform.bundle import JOBS_HEADER, encode_bundle
from taskplatform.job import Envelope
from taskplatform.payload import CONTENT_TYPE, Message, encode
from taskplatform.retry import Retry
from taskplatform.settings import load
from taskplatform.task import TaskSpec
from workers.admission import Admission
from workers.endings import Traits
from workers.held import Limits, Settlement, Tag
from workers.pipeline import Pipeline
from workers.registry import Registry
from workers.tally import Tally

KEY = b"k" * 32
TRAITS = {"quick": Traits(policy=Retry(), max_attempts=3)}
LIMITS = Limits(processes=2, window_jobs=256, window_seconds=0.1, crash_limit=3)


class Noted:
    """Receipts that remember what they were told."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.jobs: dict[Tag, int] = {}
        self.rejected: list[Tag] = []

    def received(self, tag: Tag, jobs: int = 1) -> None:
        assert tag not in self.jobs
        self.jobs[tag] = jobs

    def settle(self, over: Settlement) -> None:
        assert not over.ack
        self.rejected += over.reject

    def flush(self) -> None:
        """Nothing is acknowledged here."""


class Door:
    """An admission, and what stands on both sides of it."""

    def __init__(self, *, bundle_jobs: int = 1) -> None:
        settings = load({}, signing_keys=KEY.decode(), allow_unsigned_messages=True)
        specs = [TaskSpec(name="quick", bundle_jobs=bundle_jobs), TaskSpec(name="slow")]
        registry = Registry(traits=TRAITS, specs=specs, coroutines={}, inline={})
        self.pipeline = Pipeline("w", LIMITS, TRAITS, Random(7))
        self.woken = 0
        self.receipts = Noted()
        self.admission = Admission(settings, registry, self.pipeline, self._wake)
        self.admission.receipts = self.receipts

    def take(self, message: Message, tag: Tag = 1, **changes: Any) -> Envelope | None:
        headers: Mapping[str, Any] = {**message.headers, **changes}
        return self.admission.received(headers, message.body, {"content_type": CONTENT_TYPE}, tag)

    def _wake(self) -> None:
        self.woken += 1


def jobs(count: int, task: str = "quick") -> list[Envelope]:
    return [Envelope(id=uuid4(), task=task, body="[[],{},{}]", tenant="t", pool="p") for _ in range(count)]


def test_a_message_of_one_job_is_taken_in_and_given_back_to_be_known_again() -> None:
    door = Door()
    (job,) = jobs(1)

    assert door.take(encode(job, KEY), tag=5) == job

    assert (door.pipeline.waiting, door.receipts.jobs, door.woken) == (1, {5: 1}, 1)


def test_a_bundle_is_taken_in_job_by_job_and_no_shape_is_learned_of_it() -> None:
    door = Door()
    bundled = jobs(3)

    assert door.take(encode_bundle(bundled, KEY), tag=5) is None

    assert door.receipts.jobs == {5: 3}
    assert door.receipts.rejected == []
    assert door.woken == 1
    assert door.pipeline.waiting == 3


@pytest.mark.parametrize(
    "changes",
    [{"id": "42"}, {"id": None}, {JOBS_HEADER: 2}, {JOBS_HEADER: [3]}, {"task": "slow"}, {"tp-signature": None}],
)
def test_a_bundle_that_is_not_as_it_was_signed_is_rejected_whole(changes: dict[str, Any]) -> None:
    door = Door()

    assert door.take(encode_bundle(jobs(3), KEY), tag=5, **changes) is None

    assert (door.receipts.jobs, door.receipts.rejected, door.pipeline.held) == ({5: 1}, [5], 0)


def test_a_bundle_of_an_unknown_task_is_rejected_whole() -> None:
    door = Door()

    assert door.take(encode_bundle(jobs(3, "strange"), KEY), tag=5) is None

    assert (door.receipts.jobs, door.receipts.rejected, door.pipeline.held) == ({5: 1}, [5], 0)


def test_a_job_that_came_twice_in_a_bundle_and_once_alone_counts_as_often_as_it_came() -> None:
    door = Door()
    first, second = jobs(2)

    door.take(encode_bundle([first, second, first], KEY), tag=5)
    door.take(encode(first, KEY), tag=6)

    turn = door.pipeline.next_turn()
    assert turn is not None
    assert sorted(door.pipeline.answered(turn, []).ack) == [5, 5, 5, 6]


def test_while_the_broker_is_away_nothing_is_taken_in() -> None:
    door = Door()
    door.admission.receipts = None

    assert door.take(encode(jobs(1)[0], KEY)) is None
    door.admission.admitted(jobs(1)[0], 2)

    assert door.pipeline.held == 0


def test_the_first_messages_are_counted_by_the_largest_bundle_of_the_workers_own_tasks() -> None:
    assert [Door(bundle_jobs=jobs).admission.prefetch(512) for jobs in (1, 20, 100)] == [512, 32, 8]


def test_jobs_that_came_together_are_counted_as_one_message() -> None:
    door = Door(bundle_jobs=100)
    for tag in range(6):
        door.admission.admitted(jobs(1)[0], tag)
    assert door.admission.prefetch(6) == 8

    door.receipts.tally.received(7, 100)
    for job in jobs(100):
        door.pipeline.receive(job, 7)

    assert door.admission.prefetch(106) == 8
    assert door.admission.prefetch(3000) == 128
