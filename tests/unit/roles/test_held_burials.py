"""What the undertaker does with messages whose cluster is away, and with those behind them."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import compress, count
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest

from taskplatform.broker.contract import DeadMessage
from taskplatform.bundle import encode_bundle
from taskplatform.errors import BrokerUnavailable, StoreUnavailable
from taskplatform.job import Reason
from taskplatform.metrics import Part
from taskplatform.payload import Message, admit, encode
from taskplatform.publish import Publisher
from taskplatform.settings import load
from taskplatform.store.contract import BuriedMessage
from taskplatform.telemetry import new_metrics
from taskplatform.topology import dead_queue
from taskplatform.undertaker import BURY_MESSAGES, HELD_MESSAGES, HELD_SECONDS, Undertaker
from tests.unit.roles.test_undertaker import JOB, a_dead_message
from tests.unit.test_payload import PROPERTIES

KEY = b"k" * 32
QUEUE, OTHER_QUEUE = dead_queue("default"), dead_queue("bulk")


class Queues:
    """A broker with dead-letter queues."""

    def __init__(self) -> None:
        self.waiting: list[DeadMessage] = []
        self.taken: list[DeadMessage] = []
        self.published: list[Message] = []
        self.refused: set[UUID] = set()
        self.taken_at_publish: list[int] = []
        self._tags = count(1)

    def add(self, jobs: int, queue: str = QUEUE) -> set[UUID]:
        """Add messages of so many jobs to a queue."""
        ids = {uuid4() for _ in range(jobs)}
        for job_id in ids:
            self._put(encode(msgspec.structs.replace(JOB, id=job_id), KEY), queue)
        return ids

    def add_bundle(self, key: bytes = KEY) -> set[UUID]:
        """Add a bundle of three jobs."""
        jobs = [msgspec.structs.replace(JOB, id=uuid4()) for _ in range(3)]
        self._put(encode_bundle(jobs, key), QUEUE)
        return {job.id for job in jobs}

    def _put(self, message: Message, queue: str) -> None:
        dead = a_dead_message(headers=dict(message.headers), body=message.body)
        self.waiting.append(replace(dead, tag=next(self._tags), queue=queue))

    async def take_dead(self, queue: str, limit: int) -> list[DeadMessage]:
        """Give what was taken before, and more."""
        taken = [message for message in self.taken if message.queue == queue]
        more = [message for message in self.waiting if message.queue == queue][: max(limit - len(taken), 0)]
        self.taken += more
        tags = {message.tag for message in more}
        self.waiting = [message for message in self.waiting if message.tag not in tags]
        return [*taken, *more][:limit]

    def reconnect(self) -> None:
        """Give what is taken other tags."""
        self.taken = [replace(message, tag=next(self._tags)) for message in self.taken]

    async def settle_dead(self, messages: Sequence[DeadMessage]) -> None:
        """Forget messages."""
        tags = {message.tag for message in messages}
        self.taken = [message for message in self.taken if message.tag not in tags]

    async def publish(self, messages: Sequence[Message]) -> set[str]:
        """Confirm what may be confirmed."""
        self.taken_at_publish.append(len(self.taken))
        self.published += [message for message in messages if UUID(message.id) not in self.refused]
        return {message.id for message in messages if UUID(message.id) not in self.refused}


class Graves:
    """Keeps messages, but for those of jobs whose cluster is away."""

    def __init__(self) -> None:
        self.away: set[UUID] = set()
        self.letters: list[BuriedMessage] = []
        self.asked = 0

    async def bury(self, messages: Sequence[BuriedMessage]) -> list[bool]:
        """Keep what can be kept."""
        self.asked += len(messages)
        done = [message.job_id not in self.away for message in messages]
        self.letters += compress(messages, done)
        return done

    @property
    def buried(self) -> list[UUID | None]:
        """Tell whose messages are kept."""
        return [letter.job_id for letter in self.letters]


class Bench:
    """An undertaker, its queue and its graves."""

    def __init__(self) -> None:
        self.queue, self.graves, self.now = Queues(), Graves(), 0.0
        settings = load({}, signing_keys=KEY.decode(), pools="default,bulk")
        broker, metrics = cast(Any, self.queue), new_metrics(Part.DISPATCHER)
        self.undertaker = Undertaker(
            self.graves, broker, Publisher(broker, KEY, metrics), settings, clock=lambda: self.now
        )

    def play(self) -> None:
        """Do rounds until nothing is left to do."""
        while asyncio.run(self.undertaker.run_once()):
            pass


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_messages_of_an_absent_cluster_keep_no_others_waiting(bench: Bench) -> None:
    bench.graves.away = bench.queue.add(3 * BURY_MESSAGES)
    others = bench.queue.add(BURY_MESSAGES)

    with pytest.raises(StoreUnavailable, match=f"{3 * BURY_MESSAGES} messages"):
        bench.play()

    assert (set(bench.graves.buried), len(bench.queue.waiting)) == (others, 0)
    assert len(bench.queue.taken) == 3 * BURY_MESSAGES


def test_what_was_held_is_buried_once_when_its_cluster_is_back(bench: Bench) -> None:
    held = bench.graves.away = bench.queue.add(3 * BURY_MESSAGES)
    with pytest.raises(StoreUnavailable):
        bench.play()
    bench.graves.away = set()
    bench.now += HELD_SECONDS

    bench.play()

    assert (sorted(map(str, bench.graves.buried)), bench.queue.taken) == (sorted(map(str, held)), [])


def test_what_is_held_is_not_tried_in_every_round(bench: Bench) -> None:
    bench.graves.away = bench.queue.add(10)
    with pytest.raises(StoreUnavailable):
        bench.play()
    bench.queue.add(1)

    with pytest.raises(StoreUnavailable):
        bench.play()

    assert (bench.graves.asked, len(bench.graves.buried)) == (11, 1)


@pytest.mark.parametrize(("queue", "left"), [(QUEUE, 0), (OTHER_QUEUE, 1)])
def test_what_comes_to_be_held_later_puts_off_nothing(bench: Bench, queue: str, left: int) -> None:
    early = bench.queue.add(1)
    bench.graves.away = set(early)
    with pytest.raises(StoreUnavailable):
        bench.play()
    bench.now += HELD_SECONDS / 2
    bench.graves.away |= bench.queue.add(1, queue)
    with pytest.raises(StoreUnavailable):
        bench.play()
    bench.graves.away = set()
    bench.now += HELD_SECONDS / 2

    with pytest.raises(StoreUnavailable) if left else nullcontext():
        bench.play()

    assert early <= set(bench.graves.buried)
    assert len(bench.queue.taken) == left


def test_no_more_is_held_than_there_is_room_for(bench: Bench) -> None:
    bench.graves.away = bench.queue.add(HELD_MESSAGES + BURY_MESSAGES)

    with pytest.raises(StoreUnavailable, match=f"{HELD_MESSAGES} messages"):
        bench.play()

    assert len(bench.queue.waiting) == BURY_MESSAGES


def test_a_bundle_is_taken_apart_and_buries_nobody(bench: Bench) -> None:
    jobs, others = bench.queue.add_bundle(), bench.queue.add(2)

    bench.play()

    sent = [admit(one.headers, one.body, PROPERTIES, [KEY], allow_unsigned=False) for one in bench.queue.published]
    assert sent == [msgspec.structs.replace(JOB, id=one.id) for one in sent]
    assert ({one.id for one in sent}, set(bench.graves.buried), bench.queue.taken) == (jobs, others, [])


@pytest.mark.parametrize("refused", [1, 3])
def test_a_bundle_stays_until_all_its_jobs_are_confirmed(bench: Bench, refused: int) -> None:
    jobs, others = bench.queue.add_bundle(), bench.queue.add(1)
    bench.queue.refused = set(list(jobs)[:refused])

    with pytest.raises(BrokerUnavailable, match="1 bundles"):
        bench.play()
    held = len(bench.queue.taken)
    bench.queue.refused = set()
    bench.now += HELD_SECONDS
    bench.play()

    assert (held, bench.queue.taken, set(bench.graves.buried)) == (1, [], others)
    assert sorted(UUID(message.id) for message in bench.queue.published) == sorted(jobs)


def test_a_connection_that_is_lost_has_a_bundle_published_once_more(bench: Bench) -> None:
    jobs = bench.queue.add_bundle()
    refused = bench.queue.refused = set(list(jobs)[:1])
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="1 bundles"):
            bench.play()
        bench.queue.reconnect()
    bench.queue.refused = set()
    bench.play()

    assert bench.queue.taken == []
    assert sorted(UUID(message.id) for message in bench.queue.published) == sorted([*jobs, *2 * list(jobs - refused)])


def test_a_bundle_without_a_confirm_keeps_no_others_waiting(bench: Bench) -> None:
    bench.queue.refused = bench.queue.add_bundle()
    jobs = bench.queue.add_bundle()

    with pytest.raises(BrokerUnavailable, match="1 bundles"):
        bench.play()

    assert (len(bench.queue.taken), {UUID(message.id) for message in bench.queue.published}) == (1, jobs)


def test_bundles_are_published_together_and_what_is_buried_waits_for_none(bench: Bench) -> None:
    for _ in range(2):
        bench.queue.add_bundle()
    bench.queue.add(3)

    bench.play()

    assert (bench.queue.taken_at_publish, bench.queue.taken) == ([2], [])


def test_a_forged_bundle_is_buried_as_it_is_and_speaks_for_no_job(bench: Bench) -> None:
    bench.queue.add_bundle(b"n" * 32)
    (message,) = bench.queue.waiting

    bench.play()

    (letter,) = bench.graves.letters
    assert (letter.reason, letter.raw, letter.job_id) == (Reason.FORGED, message.body, None)
    assert (bench.queue.published, bench.queue.taken) == ([], [])
