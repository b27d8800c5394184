"""Turning releases into messages, and outbox rows that a confirm settles."""

import asyncio
from collections.abc import Collection, Sequence
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from taskplatform.broker.contract import DeadMessage
from taskplatform.bundle import JOBS_HEADER
from taskplatform.errors import BrokerUnavailable
from taskplatform.freight import Freight
from taskplatform.job import Envelope
from taskplatform.payload import CONTENT_TYPE, Message, admit, encode_body
from taskplatform.publish import Publisher, settled_rows
from taskplatform.store.contract import Release
from taskplatform.telemetry import new_metrics

KEY = b"a key for tests, of 32 characters"


class Obliging:
    """A broker in memory that confirms `confirms` of what it gets, all by default."""

    connected = True
    keeps_confirmed = True

    def __init__(self, confirms: int | None = None) -> None:
        self.messages: list[Message] = []
        self._confirms = confirms

    async def publish(self, messages: Sequence[Message]) -> set[str]:
        self.messages += messages
        return {message.id for message in messages[: self._confirms]}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def declare(self, pools: Collection[str]) -> None: ...

    async def depths(self, queues: Sequence[str]) -> dict[str, int]:
        return {}

    async def take_dead(self, queue: str, limit: int) -> list[DeadMessage]:
        return []

    async def settle_dead(self, messages: Sequence[DeadMessage]) -> None: ...


def release(outbox_id: int | None = 1, pool: str = "default") -> Release:
    envelope = Envelope(id=uuid4(), task="t", body=encode_body([1], {}), tenant="acme", pool=pool)
    return Release(envelope=envelope, outbox_id=outbox_id)


def test_what_the_broker_confirms_is_given_back() -> None:
    releases = [release(), release(), release()]
    publish = Publisher(Obliging(confirms=2), KEY, new_metrics())

    confirmed = asyncio.run(publish(releases))

    assert confirmed == {one.envelope.id for one in releases[:2]}


def test_a_published_message_is_signed_and_says_what_the_job_is() -> None:
    broker, one = Obliging(), release()

    asyncio.run(Publisher(broker, KEY, new_metrics())([one]))

    (message,) = broker.messages
    properties = {"content_type": CONTENT_TYPE}
    assert admit(message.headers, message.body, properties, [KEY], allow_unsigned=False) == one.envelope


def test_a_broker_that_confirms_nothing_is_unavailable() -> None:
    publish = Publisher(Obliging(confirms=0), KEY, new_metrics())

    with pytest.raises(BrokerUnavailable, match="none of 2"):
        asyncio.run(publish([release(), release()]))


def test_nothing_is_published_for_nothing() -> None:
    assert asyncio.run(Publisher(Obliging(confirms=0), KEY, new_metrics())([])) == set()


def test_a_job_that_makes_no_message_does_not_hold_up_the_others() -> None:
    good = release()
    publish = Publisher(Obliging(), KEY, new_metrics())

    confirmed = asyncio.run(publish([release(pool="NOT A POOL"), good]))

    assert confirmed == {good.envelope.id}


def test_messages_without_a_confirm_are_counted() -> None:
    metrics = new_metrics()

    asyncio.run(Publisher(Obliging(confirms=1), KEY, metrics)([release(), release(), release()]))

    assert metrics.registry.get_sample_value("tp_publish_unconfirmed_total") == 2


def test_jobs_travel_together_and_are_confirmed_together() -> None:
    broker, releases = Obliging(confirms=2), [release() for _ in range(5)]

    confirmed = asyncio.run(Publisher(broker, KEY, new_metrics(), lambda task: 2)(releases))

    assert [message.headers.get(JOBS_HEADER) for message in broker.messages] == [2, 2, None]
    assert confirmed == {one.envelope.id for one in releases[:4]}


def test_a_job_that_is_released_twice_at_a_time_travels_once() -> None:
    # Else two bundles might go by the same id, and one of them be taken for confirmed.
    broker, one, other = Obliging(), release(1), release(1)
    again = replace(one, outbox_id=2)

    confirmed = asyncio.run(Publisher(broker, KEY, new_metrics(), lambda task: 2)([one, other, again]))

    assert [message.headers.get(JOBS_HEADER) for message in broker.messages] == [2]
    assert sorted(row for row in settled_rows([one, other, again], confirmed)) == [1, 2]


def test_jobs_that_make_no_message_do_not_hold_up_the_others_of_their_task() -> None:
    good, bad = [release(), release()], [release(pool="NOT A POOL"), release(pool="NOT A POOL")]
    publish = Publisher(Obliging(), KEY, new_metrics(), lambda task: 9)

    confirmed = asyncio.run(publish([bad[0], *good, bad[1]]))

    assert confirmed == {one.envelope.id for one in good}


def test_a_publisher_knows_how_many_jobs_its_confirmed_messages_carry() -> None:
    publish = Publisher(Obliging(confirms=2), KEY, new_metrics(), lambda task: 4)
    publish.freight = Freight(clock=lambda: 0.0)

    asyncio.run(publish([*(release() for _ in range(5)), *(release(pool="video") for _ in range(2))]))

    # The bundle of the other queue is not confirmed.
    assert (publish.freight.jobs_in("jobs.default.normal", 10), publish.freight.jobs_in("jobs.video.normal", 10)) == (
        25,
        10,
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4) | st.none(), st.booleans())))
def test_a_row_is_settled_when_all_its_messages_are_confirmed(batch: list[tuple[int | None, bool]]) -> None:
    releases = [replace(release(), outbox_id=row) for row, _ in batch]
    confirmed: set[UUID] = {one.envelope.id for one, (_, ok) in zip(releases, batch, strict=True) if ok}

    settled = settled_rows(releases, confirmed)

    rows = {row for row, _ in batch if row is not None}
    assert sorted(settled) == sorted(row for row in rows if all(ok for other, ok in batch if other == row))
