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
from taskplatform.store.working import Claimed
from taskplatform.task import TaskSpec
from workers.admission import Admission
from workers.endings import Traits
from workers.held import Limits, Tag
from workers.pipeline import Pipeline
from workers.receipts import AmqpReceipts
from workers.registry import Registry

KEY = b"k" * 32
TRAITS = {"quick": Traits(policy=Retry(), max_attempts=3)}
LIMITS = Limits(processes=2, window_jobs=256, window_seconds=0.1, crash_limit=3)


class Channel:
    """A channel that notes what it is told."""

    def __init__(self) -> None:
        self.acknowledged: list[Tag] = []
        self.rejected: list[Tag] = []

    def basic_ack(self, tag: Tag, *, multiple: bool = False) -> None:
        self.acknowledged.append(tag)

    def basic_reject(self, tag: Tag, *, requeue: bool) -> None:
        assert not requeue
        self.rejected.append(tag)


class Door:
    """An admission, and what stands on both sides of it."""

    def __init__(self, *, bundle_jobs: int = 1) -> None:
        settings = load({}, signing_keys=KEY.decode(), allow_unsigned_messages=True)
        specs = [TaskSpec(name="quick", bundle_jobs=bundle_jobs), TaskSpec(name="slow")]
        registry = Registry(traits=TRAITS, specs=specs, coroutines={}, inline={})
        self.pipeline = Pipeline("w", LIMITS, TRAITS, Random(7))
        self.woken = 0
        self.channel = Channel()
        self.receipts = AmqpReceipts(self.channel)
        self.admission = Admission(settings, registry, self.pipeline, self._wake)
        self.admission.receipts = self.receipts

    def take(self, message: Message, tag: Tag = 1, **changes: Any) -> Envelope | None:
        headers: Mapping[str, Any] = {**message.headers, **changes}
        return self.admission.received(headers, message.body, {"content_type": CONTENT_TYPE}, tag)

    def claim(self, *claimed: Envelope) -> None:
        """Ask for all that waits, and get so many of them; the others are over."""
        given = [Claimed(id=job.id, attempt=1, failures=0, crashes=0, max_attempts=3, suspect=False) for job in claimed]
        while turn := self.pipeline.next_turn():
            self.receipts.settle(self.pipeline.answered(turn, given))
        self.receipts.flush()

    def _wake(self) -> None:
        self.woken += 1


def jobs(count: int, task: str = "quick") -> list[Envelope]:
    return [Envelope(id=uuid4(), task=task, body="[[],{},{}]", tenant="t", pool="p") for _ in range(count)]


def test_a_message_of_one_job_is_taken_in_and_given_back_to_be_known_again() -> None:
    door = Door()
    (job,) = jobs(1)

    assert door.take(encode(job, KEY), tag=5) == job

    assert (door.pipeline.waiting, door.receipts.deliveries, door.woken) == (1, 1, 1)
    door.claim()
    assert (door.receipts.deliveries, door.channel.acknowledged) == (0, [5])


def test_a_bundle_is_taken_in_job_by_job_and_no_shape_is_learned_of_it() -> None:
    door = Door()
    bundled = jobs(3)

    assert door.take(encode_bundle(bundled, KEY), tag=5) is None

    assert (door.pipeline.waiting, door.receipts.deliveries, door.woken) == (3, 1, 1)
    door.claim(bundled[1])
    assert (door.receipts.deliveries, door.channel.acknowledged) == (1, [])


@pytest.mark.parametrize(
    "changes",
    [{"id": "42"}, {"id": None}, {JOBS_HEADER: 2}, {JOBS_HEADER: [3]}, {"task": "slow"}, {"tp-signature": None}],
)
def test_a_bundle_that_is_not_as_it_was_signed_is_rejected_whole(changes: dict[str, Any]) -> None:
    door = Door()

    assert door.take(encode_bundle(jobs(3), KEY), tag=5, **changes) is None

    assert (door.receipts.deliveries, door.channel.rejected, door.pipeline.held) == (0, [5], 0)


def test_a_bundle_of_an_unknown_task_is_rejected_whole() -> None:
    door = Door()

    assert door.take(encode_bundle(jobs(3, "strange"), KEY), tag=5) is None

    assert (door.receipts.deliveries, door.channel.rejected, door.pipeline.held) == (0, [5], 0)


def test_a_job_that_came_twice_in_a_bundle_and_once_alone_counts_as_often_as_it_came() -> None:
    door = Door()
    first, second = jobs(2)

    door.take(encode_bundle([first, second, first], KEY), tag=5)
    door.take(encode(first, KEY), tag=6)

    assert door.receipts.deliveries == 2
    door.claim(second)
    assert (door.receipts.deliveries, door.channel.acknowledged) == (1, [6])


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
    for tag in range(1, 7):
        door.admission.admitted(jobs(1)[0], tag)
    assert door.admission.prefetch(7) == 7

    door.take(encode_bundle(jobs(100), KEY), tag=7)

    assert door.admission.prefetch(107) == 8
    assert door.admission.prefetch(106) == 7


def test_a_job_that_holds_two_bundles_up_keeps_no_other_out() -> None:
    door = Door(bundle_jobs=100)
    bundled = jobs(100)
    for tag in (1, 2):
        door.take(encode_bundle(bundled, KEY), tag=tag)

    door.claim(bundled[7])

    assert (door.pipeline.held, door.receipts.deliveries) == (1, 2)
    assert door.admission.prefetch(8) > 2


def test_what_is_claimed_of_a_lost_channels_deliveries_counts_as_none_of_the_next_ones() -> None:
    door = Door(bundle_jobs=100)
    door.pipeline.pace.observe("quick", 0.0001)
    at_first = door.admission.prefetch(512)
    bundled = jobs(200)
    door.take(encode_bundle(bundled[:100], KEY), tag=1)
    door.take(encode_bundle(bundled[100:], KEY), tag=2)
    door.claim(*bundled)

    door.pipeline.channel_lost()
    door.admission.receipts = AmqpReceipts(Channel())

    assert door.pipeline.held == 200
    assert door.admission.prefetch(512) == at_first
