"""What every broker driver has to keep, whichever server is behind it; the test files beside this one bind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from taskplatform.broker.contract import Broker, DeadMessage
from taskplatform.errors import BrokerUnavailable
from taskplatform.payload import Message
from taskplatform.servers import RabbitMQ, Redis
from tests.fixtures.broker import Drive, DrivenBroker, a_message, drain
from tests.fixtures.proxy import NewProxy
from tests.fixtures.waiting import eventually

WORK = "jobs.default.normal"
OTHER_WORK = "jobs.default.low"
DEAD = "jobs.default.dead"
IMPATIENT_SECONDS = 1.0


class Build(Protocol):
    """Builds the driver under test for a URL."""

    def __call__(self, url: str, *, timeout_seconds: float = 10.0) -> Broker: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One driver with a real server: `url` leads to a place of the test's own, `url_at` there through another port."""

    server: RabbitMQ | Redis
    port: int
    url: str
    url_at: Callable[[int], str]
    build: Build
    bury: Callable[[Message], None]


def bury(setting: Setting, broker: DrivenBroker, count: int = 1) -> list[Message]:
    """Let messages die in the pool's work queue, and wait until they lie among its dead letters."""
    messages = [a_message(WORK, number=number) for number in range(count)]
    for message in messages:
        setting.bury(message)
    assert eventually(lambda: broker.depths([DEAD])[DEAD] == count, within_seconds=20)
    return messages


def take_all(broker: DrivenBroker, count: int) -> list[DeadMessage]:
    """Take until there are as many as expected."""
    taken: list[DeadMessage] = []

    def enough() -> bool:
        taken[:] = broker.take_dead(DEAD, count)
        return len(taken) == count

    assert eventually(enough, within_seconds=60)
    return taken


class BrokerContract:
    """The cases; a subclass gives the fixture `setting`."""

    @pytest.fixture
    def broker(self, setting: Setting, drive: Drive) -> DrivenBroker:
        broker = drive(lambda: setting.build(setting.url))
        broker.declare(["default"])
        return broker

    @pytest.fixture
    def impatient(self, setting: Setting, drive: Drive) -> DrivenBroker:
        broker = drive(lambda: setting.build(setting.url, timeout_seconds=IMPATIENT_SECONDS))
        eventually(lambda: broker.connected)
        broker.declare(["default"])
        assert broker.publishes_again(WORK)
        return broker

    def test_a_published_message_reaches_a_kombu_consumer_unchanged(
        self, setting: Setting, broker: DrivenBroker
    ) -> None:
        message = a_message(WORK, text="naïve ☃", big=2**40, nested={"list": [1, 2.5, False]})

        confirmed = broker.publish([message])

        (received,) = drain(setting.url, WORK)
        assert confirmed == {message.id}
        assert received.headers.items() >= message.headers.items()
        assert received.payload == json.loads(message.body)

    def test_a_published_message_says_what_it_is(self, setting: Setting, broker: DrivenBroker) -> None:
        message = a_message(WORK)

        broker.publish([message])

        (received,) = drain(setting.url, WORK)
        assert (received.content_type, received.content_encoding) == ("application/json", "utf-8")
        assert (
            received.properties.items()
            >= {
                "correlation_id": message.id,
                "message_id": message.id,
                "type": message.headers["task"],
                "delivery_mode": 2,
            }.items()
        )

    def test_five_thousand_messages_are_all_confirmed_and_there(self, setting: Setting, broker: DrivenBroker) -> None:
        messages = [a_message(WORK) for _ in range(5000)]

        confirmed = broker.publish(messages)

        assert confirmed == {message.id for message in messages}
        assert {message.headers["id"] for message in drain(setting.url, WORK)} == confirmed

    def test_messages_of_one_publish_go_to_the_queues_they_name(self, setting: Setting, broker: DrivenBroker) -> None:
        here, there = a_message(WORK), a_message(OTHER_WORK)

        broker.publish([here, there])

        assert [message.headers["id"] for message in drain(setting.url, OTHER_WORK)] == [there.id]

    def test_messages_are_received_in_the_order_of_their_publish(self, setting: Setting, broker: DrivenBroker) -> None:
        messages = [a_message(WORK) for _ in range(1200)]

        broker.publish(messages)

        assert [each.headers["id"] for each in drain(setting.url, WORK)] == [each.id for each in messages]

    def test_many_publishes_at_once_are_each_told_of_their_own_messages(self, broker: DrivenBroker) -> None:
        batches = [[a_message(WORK) for _ in range(size)] for size in (1, 300, 2, 700, 1)]

        answers = [broker.begin_publish(batch) for batch in batches]

        assert [answer.result(60) for answer in answers] == [{each.id for each in batch} for batch in batches]

    def test_an_empty_publish_confirms_nothing(self, broker: DrivenBroker) -> None:
        assert broker.publish([]) == set()

    def test_a_large_body_arrives_whole(self, setting: Setting, broker: DrivenBroker) -> None:
        message = a_message(WORK, text="x" * 1_000_000)

        broker.publish([message])

        assert drain(setting.url, WORK)[0].payload == json.loads(message.body)

    def test_declaring_again_changes_nothing(self, broker: DrivenBroker) -> None:
        broker.publish([a_message(WORK)])

        broker.declare(["default", "default"])

        assert eventually(lambda: broker.depths([WORK]) == {WORK: 1})

    def test_depths_count_what_waits_in_each_queue(self, broker: DrivenBroker) -> None:
        broker.publish([a_message(WORK), a_message(WORK), a_message(OTHER_WORK)])

        expected = {WORK: 2, OTHER_WORK: 1, DEAD: 0}

        assert eventually(lambda: broker.depths([WORK, OTHER_WORK, DEAD]) == expected)

    def test_a_dead_message_is_taken_with_its_body_headers_and_source(
        self, setting: Setting, broker: DrivenBroker
    ) -> None:
        (message,) = bury(setting, broker)

        (dead,) = broker.take_dead(DEAD, 10)

        assert (dead.queue, dead.source_queue, dead.reason) == (DEAD, WORK, "rejected")
        assert dead.body == message.body
        assert dead.headers.items() >= message.headers.items()

    def test_the_content_type_of_a_dead_message_is_among_its_properties(
        self, setting: Setting, broker: DrivenBroker
    ) -> None:
        bury(setting, broker)

        (dead,) = broker.take_dead(DEAD, 10)

        assert (dead.properties["content_type"], dead.properties["content_encoding"]) == ("application/json", "utf-8")

    def test_a_settled_dead_message_is_gone(self, setting: Setting, broker: DrivenBroker, drive: Drive) -> None:
        bury(setting, broker)

        broker.settle_dead(broker.take_dead(DEAD, 10))
        broker.stop()

        other = drive(lambda: setting.build(setting.url))
        assert (other.take_dead(DEAD, 10), other.depths([DEAD])) == ([], {DEAD: 0})

    def test_dead_messages_are_taken_oldest_first_and_no_more_than_asked_for(
        self, setting: Setting, broker: DrivenBroker
    ) -> None:
        messages = bury(setting, broker, 5)

        taken = broker.take_dead(DEAD, 3)

        assert [dead.headers["id"] for dead in taken] == [message.id for message in messages[:3]]

    def test_settling_one_dead_message_leaves_the_others(self, setting: Setting, broker: DrivenBroker) -> None:
        _, second, third = bury(setting, broker, 3)
        taken = broker.take_dead(DEAD, 2)

        broker.settle_dead(taken[:1])

        assert [dead.headers["id"] for dead in broker.take_dead(DEAD, 3)] == [second.id, third.id]

    def test_a_dead_message_that_was_not_settled_keeps_its_tag(self, setting: Setting, broker: DrivenBroker) -> None:
        first, second = bury(setting, broker, 2)
        (once,) = broker.take_dead(DEAD, 1)

        again = broker.take_dead(DEAD, 2)

        assert [dead.headers["id"] for dead in again] == [first.id, second.id]
        assert again[0].tag == once.tag != again[1].tag

    def test_settling_a_dead_message_twice_does_no_harm(self, setting: Setting, broker: DrivenBroker) -> None:
        _, second = bury(setting, broker, 2)
        taken = broker.take_dead(DEAD, 1)

        broker.settle_dead(taken)
        broker.settle_dead(taken)

        assert [dead.headers["id"] for dead in broker.take_dead(DEAD, 2)] == [second.id]

    def test_dead_messages_that_were_not_settled_come_again_to_the_next_taker(
        self, setting: Setting, broker: DrivenBroker, drive: Drive
    ) -> None:
        messages = bury(setting, broker, 2)
        broker.take_dead(DEAD, 2)
        broker.stop()

        again = take_all(drive(lambda: setting.build(setting.url)), 2)

        assert {dead.headers["id"] for dead in again} == {message.id for message in messages}

    def test_a_dead_message_whose_connection_is_gone_comes_again(
        self, setting: Setting, broker: DrivenBroker, drive: Drive, new_proxy: NewProxy
    ) -> None:
        (message,) = bury(setting, broker)
        proxy = new_proxy(setting.port)
        through = drive(lambda: setting.build(setting.url_at(proxy.port)))
        through.take_dead(DEAD, 1)
        proxy.cut()

        again = take_all(through, 1)

        assert again[0].headers["id"] == message.id

    def test_a_broker_that_is_away_confirms_nothing(self, setting: Setting, drive: Drive, new_proxy: NewProxy) -> None:
        proxy = new_proxy(setting.port)
        proxy.refuse()

        broker = drive(lambda: setting.build(setting.url_at(proxy.port)))

        assert broker.publish([a_message(WORK)]) == set()
        assert not broker.connected

    def test_questions_to_a_broker_that_is_away_say_so(
        self, setting: Setting, drive: Drive, new_proxy: NewProxy
    ) -> None:
        proxy = new_proxy(setting.port)
        proxy.refuse()
        broker = drive(lambda: setting.build(setting.url_at(proxy.port)))

        with pytest.raises(BrokerUnavailable):
            broker.depths([WORK])
        with pytest.raises(BrokerUnavailable):
            broker.declare(["default"])
        with pytest.raises(BrokerUnavailable):
            broker.take_dead(DEAD, 1)

    def test_a_broker_that_comes_later_is_found(
        self, setting: Setting, broker: DrivenBroker, drive: Drive, new_proxy: NewProxy
    ) -> None:
        proxy = new_proxy(setting.port)
        proxy.refuse()
        early = drive(lambda: setting.build(setting.url_at(proxy.port)))
        early.publish([a_message(WORK)])

        proxy.resume()

        assert early.publishes_again(WORK)

    def test_a_stopped_broker_may_be_stopped_again(self, broker: DrivenBroker) -> None:
        broker.stop()

        broker.stop()

    @pytest.mark.faults
    def test_a_connection_cut_inside_a_message_confirms_only_what_arrived(
        self, setting: Setting, broker: DrivenBroker, drive: Drive, new_proxy: NewProxy
    ) -> None:
        proxy = new_proxy(setting.port)
        through = drive(lambda: setting.build(setting.url_at(proxy.port)))
        assert through.publishes_again(WORK)
        drain(setting.url, WORK)
        proxy.cut_after(1_000_003)

        confirmed = through.publish([a_message(WORK, text="x" * 1000) for _ in range(2000)])

        assert proxy.was_cut()
        assert confirmed <= {message.headers["id"] for message in drain(setting.url, WORK)}
        assert through.publishes_again(WORK)

    @pytest.mark.faults
    def test_a_silent_connection_holds_no_publish_up_and_is_replaced(
        self, setting: Setting, broker: DrivenBroker, drive: Drive, new_proxy: NewProxy
    ) -> None:
        proxy = new_proxy(setting.port)
        through = drive(lambda: setting.build(setting.url_at(proxy.port), timeout_seconds=IMPATIENT_SECONDS))
        assert through.publishes_again(WORK)
        proxy.hang()

        assert through.publish([a_message(WORK) for _ in range(3000)]) == set()

        proxy.resume()
        assert through.publishes_again(WORK)

    @pytest.mark.faults
    def test_a_frozen_server_holds_no_publish_up_and_is_used_again_when_it_goes_on(
        self, setting: Setting, impatient: DrivenBroker
    ) -> None:
        setting.server.process.freeze()
        try:
            confirmed = impatient.publish([a_message(WORK) for _ in range(3000)])
            with pytest.raises(BrokerUnavailable):
                impatient.depths([WORK])
        finally:
            setting.server.process.thaw()

        assert confirmed == set()
        assert impatient.publishes_again(WORK)

    @pytest.mark.faults
    @pytest.mark.slow
    def test_a_server_killed_midway_keeps_what_it_confirmed_and_is_used_again_after_its_restart(
        self, setting: Setting, broker: DrivenBroker
    ) -> None:
        confirmed = broker.publish([a_message(WORK) for _ in range(500)])
        answer = broker.begin_publish([a_message(WORK) for _ in range(20_000)])

        try:
            eventually(lambda: broker.depths([WORK])[WORK] > 500)
            setting.server.kill()
            confirmed |= answer.result(60)
            assert broker.publish([a_message(WORK)]) == set()
        finally:
            setting.server.kill()
            setting.server.start()

        assert broker.publishes_again(WORK)
        assert confirmed <= {message.headers["id"] for message in drain(setting.url, WORK)}
