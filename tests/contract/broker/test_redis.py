"""The Redis driver keeps the contract, and the promises of its own."""

import json
from base64 import b64encode

import kombu
import pytest
from redis import Redis as Client

from taskplatform.broker.redis import RedisBroker
from taskplatform.errors import SettingsError
from taskplatform.payload import Message
from taskplatform.servers import Redis
from tests.contract.broker.cases import DEAD, WORK, BrokerContract, Setting, bury
from tests.fixtures.broker import Drive, DrivenBroker, a_message


@pytest.fixture
def client(redis_db: str) -> Client:
    return Client.from_url(redis_db)


class TestRedis(BrokerContract):
    @pytest.fixture
    def setting(self, redis: Redis, redis_db: str, client: Client) -> Setting:
        def build(url: str, *, timeout_seconds: float = 10.0) -> RedisBroker:
            return RedisBroker(url, publish_timeout_seconds=timeout_seconds)

        def bury(message: Message) -> None:
            client.lpush(DEAD, _as_a_worker_buries_it(message))

        return Setting(
            server=redis,
            port=redis.port,
            url=redis_db,
            url_at=lambda port: redis_db.replace(str(redis.port), str(port)),
            build=build,
            bury=bury,
        )

    def test_a_kombu_consumer_that_declares_its_queue_receives_what_was_published_before(
        self, setting: Setting, broker: DrivenBroker
    ) -> None:
        message = a_message(WORK)
        broker.publish([message])
        received: list[str] = []

        with kombu.Connection(setting.url) as connection:
            queue = kombu.Queue(WORK, kombu.Exchange(""), routing_key=WORK)
            consumer = connection.Consumer([queue], accept=["json"], no_ack=True)
            consumer.register_callback(lambda body, taken: received.append(taken.headers["id"]))
            with consumer:
                connection.drain_events(timeout=10)

        assert received == [message.id]

    def test_nothing_but_the_list_of_messages_is_written(self, broker: DrivenBroker, client: Client) -> None:
        broker.publish([a_message(WORK)])

        assert client.keys("*") == [WORK.encode()]

    def test_a_full_server_refuses_and_nothing_is_confirmed(self, broker: DrivenBroker, client: Client) -> None:
        client.config_set("maxmemory", "1")
        try:
            confirmed = broker.publish([a_message(WORK)])
        finally:
            client.config_set("maxmemory", "0")

        assert confirmed == set()

    def test_messages_for_a_key_that_is_no_list_are_not_confirmed_and_hold_no_others_up(
        self, broker: DrivenBroker, client: Client
    ) -> None:
        client.set("jobs.odd.normal", "not a list")
        fine = a_message(WORK)

        assert broker.publish([a_message("jobs.odd.normal"), fine]) == {fine.id}

    @pytest.mark.parametrize(
        "raw", [b"\xff\x00", b"{}", b"[1]", b'{"body": 5, "properties": {"body_encoding": "base64"}}']
    )
    def test_a_dead_letter_that_nobody_can_read_is_taken_as_it_is(
        self, raw: bytes, broker: DrivenBroker, client: Client
    ) -> None:
        client.lpush(DEAD, raw)

        (dead,) = broker.take_dead(DEAD, 1)

        assert (dead.body, dead.headers, dead.reason, dead.source_queue) == (raw, {}, None, DEAD)

    def test_one_process_at_a_time_takes_dead_letters(
        self, setting: Setting, broker: DrivenBroker, drive: Drive
    ) -> None:
        bury(setting, broker)
        broker.take_dead(DEAD, 1)

        other = drive(lambda: setting.build(setting.url))

        assert other.take_dead(DEAD, 1) == []

    def test_the_dead_letters_of_a_crashed_taker_come_again(
        self, setting: Setting, broker: DrivenBroker, drive: Drive, client: Client
    ) -> None:
        (message,) = bury(setting, broker)
        broker.take_dead(DEAD, 1)

        # What its end does after half a minute of silence.
        client.delete(f"{DEAD}.taker")
        (again,) = drive(lambda: setting.build(setting.url)).take_dead(DEAD, 1)

        assert again.headers["id"] == message.id

    def test_a_taker_that_stops_makes_room_for_the_next_at_once(
        self, setting: Setting, broker: DrivenBroker, drive: Drive
    ) -> None:
        broker.settle_dead(broker.take_dead(DEAD, 1))
        broker.stop()
        other = drive(lambda: setting.build(setting.url))

        (message,) = bury(setting, other)

        assert [dead.headers["id"] for dead in other.take_dead(DEAD, 1)] == [message.id]

    def test_more_publishes_at_once_than_there_are_connections_are_all_confirmed(self, broker: DrivenBroker) -> None:
        messages = [a_message(WORK) for _ in range(200)]

        answers = [broker.begin_publish([message]) for message in messages]

        assert [answer.result(60) for answer in answers] == [{message.id} for message in messages]

    def test_a_malformed_url_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="broker_url"):
            RedisBroker("redis//nowhere", publish_timeout_seconds=1)


def _as_a_worker_buries_it(message: Message) -> str:
    death = {"x-first-death-reason": "rejected", "x-first-death-queue": message.routing_key}
    return json.dumps(
        {
            "body": b64encode(message.body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {**message.headers, **death},
            "properties": {"correlation_id": message.id, "body_encoding": "base64", "delivery_tag": message.id},
        }
    )
