"""The RabbitMQ driver keeps the contract, and the promises of its own."""

import asyncio
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import kombu
import pytest
import uvloop

from taskplatform.broker.rabbitmq import RabbitMQBroker
from taskplatform.errors import BrokerUnavailable, SettingsError
from taskplatform.payload import Message
from taskplatform.servers import RabbitMQ, free_ports
from taskplatform.topology import DELIVERY_LIMIT
from tests.contract.broker.cases import DEAD, IMPATIENT_SECONDS, WORK, BrokerContract, Setting, bury, take_all
from tests.fixtures.broker import Drive, DrivenBroker, a_message, drain
from tests.fixtures.proxy import NewProxy
from tests.fixtures.servers import Vhost
from tests.fixtures.waiting import eventually


class TestRabbitMQ(BrokerContract):
    @pytest.fixture
    def setting(self, rabbitmq: RabbitMQ, vhost: Vhost) -> Setting:
        def build(url: str, *, timeout_seconds: float = 10.0) -> RabbitMQBroker:
            return RabbitMQBroker([url], publish_timeout_seconds=timeout_seconds)

        return Setting(
            server=rabbitmq,
            port=rabbitmq.ports.amqp,
            url=vhost.url,
            url_at=lambda port: vhost.url.replace(f":{rabbitmq.ports.amqp}/", f":{port}/"),
            build=build,
            bury=lambda message: _reject(vhost.url, message),
        )

    def test_a_message_for_a_queue_that_does_not_exist_is_not_confirmed(self, broker: DrivenBroker) -> None:
        fine = [a_message(WORK) for _ in range(200)]
        lost = [a_message("jobs.nowhere.normal") for _ in range(3)]

        confirmed = broker.publish([*lost[:2], *fine, *lost[2:]])

        assert confirmed == {message.id for message in fine}

    def test_a_queue_that_does_not_exist_has_no_depth(self, broker: DrivenBroker) -> None:
        assert broker.depths(["jobs.nowhere.normal", WORK, "jobs.nowhere.dead"]) == {WORK: 0}

    def test_dead_letters_taken_before_survive_a_question_for_a_missing_queue(
        self, setting: Setting, broker: DrivenBroker, drive: Drive
    ) -> None:
        bury(setting, broker)
        taken = broker.take_dead(DEAD, 1)
        broker.depths(["jobs.nowhere.normal"])

        broker.settle_dead(taken)
        broker.stop()

        assert drive(lambda: setting.build(setting.url)).depths([DEAD]) == {DEAD: 0}

    def test_a_message_that_a_full_queue_refuses_is_not_confirmed(self, setting: Setting, broker: DrivenBroker) -> None:
        full = "jobs.full.normal"
        arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
        with kombu.Connection(setting.url) as connection:
            kombu.Queue(full, channel=connection.default_channel, queue_arguments=arguments).declare()

        # The limit is soft: the broker takes some more than it says.
        confirmed = set().union(*(broker.publish([a_message(full)]) for _ in range(20)))

        assert confirmed == {message.headers["id"] for message in drain(setting.url, full)}
        assert len(confirmed) < 20

    def test_a_message_that_cannot_be_written_holds_no_others_up(self, broker: DrivenBroker) -> None:
        fine, odd, long, wide = (a_message(WORK) for _ in range(4))
        broken = [
            Message(id=odd.id, routing_key=WORK, headers={"odd": object()}, body=b"{}"),
            Message(id="x" * 300, routing_key=WORK, headers=long.headers, body=b"{}"),
            Message(id=wide.id, routing_key=WORK, headers={"wide": "x" * 200_000}, body=b"{}"),
        ]

        assert broker.publish([*broken, fine]) == {fine.id}

    def test_a_body_without_bytes_is_published(self, setting: Setting, broker: DrivenBroker) -> None:
        message = Message(id=str(uuid4()), routing_key=WORK, headers={"task": "t"}, body=b"")

        assert broker.publish([message]) == {message.id}

    def test_a_message_that_was_delivered_too_often_dies_for_its_delivery_limit(
        self, setting: Setting, broker: DrivenBroker
    ) -> None:
        broker.publish([a_message(WORK)])
        with kombu.Connection(setting.url) as connection:
            queue = kombu.Queue(WORK, channel=connection.default_channel)
            for _ in range(DELIVERY_LIMIT + 1):
                message = eventually(queue.get)
                assert message is not None
                message.reject(requeue=True)

        (dead,) = take_all(broker, 1)

        assert (dead.reason, dead.source_queue) == ("delivery_limit", WORK)

    def test_a_dead_letter_can_be_handed_out_for_ever_under_the_policy_of_the_deployment_page(
        self, setting: Setting, broker: DrivenBroker, rabbitmq: RabbitMQ, vhost: Vhost
    ) -> None:
        page = (Path(__file__).parents[3] / "docs" / "deploy.md").read_text(encoding="utf-8")
        (command,) = (line for line in page.splitlines() if line.startswith("rabbitmqctl set_policy"))
        rabbitmq.control("set_policy", "-p", vhost.name, *shlex.split(command)[2:])
        eventually(lambda: f"{DEAD}\tjobs-dead" in rabbitmq.control("list_queues", "-p", vhost.name, "name", "policy"))
        bury(setting, broker)

        with kombu.Connection(setting.url) as connection:
            queue = kombu.Queue(DEAD, channel=connection.default_channel)
            for _ in range(2 * DELIVERY_LIMIT):
                message = eventually(queue.get)
                assert message is not None
                message.reject(requeue=True)

        assert len(take_all(broker, 1)) == 1

    def test_a_dead_letter_without_any_header_is_taken(self, setting: Setting, broker: DrivenBroker) -> None:
        with kombu.Connection(setting.url) as connection:
            connection.Producer().publish(b"\xff\x00", routing_key=DEAD, content_type="x/y", content_encoding="binary")

        (dead,) = take_all(broker, 1)

        assert (dead.body, dead.reason, dead.source_queue) == (b"\xff\x00", None, DEAD)

    def test_queues_that_were_declared_otherwise_are_named_in_the_error(self, setting: Setting, drive: Drive) -> None:
        with kombu.Connection(setting.url) as connection:
            kombu.Queue(WORK, channel=connection.default_channel).declare()
        broker = drive(lambda: setting.build(setting.url))

        with pytest.raises(Exception, match=WORK):
            broker.declare(["default"])

    def test_the_next_address_is_used_when_one_is_dead(self, setting: Setting, drive: Drive) -> None:
        dead = f"amqp://guest:guest@127.0.0.1:{free_ports(1)[0]}/"
        broker = drive(lambda: RabbitMQBroker([dead, setting.url], publish_timeout_seconds=10))
        broker.declare(["default"])

        assert broker.publishes_again(WORK)

    def test_a_wrong_password_is_told_without_showing_it(self, setting: Setting, drive: Drive) -> None:
        wrong = setting.url.replace("guest:guest", "guest:hunter2")
        broker = drive(lambda: setting.build(wrong))

        with pytest.raises(Exception, match="ACCESS_REFUSED") as caught:
            broker.depths([WORK])

        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("url", ["redis://127.0.0.1", "amqp://127.0.0.1:port", "amqp://127.0.0.1/?heartbeat=0", ""])
    def test_a_malformed_url_is_refused(self, url: str) -> None:
        with pytest.raises(SettingsError, match="broker_url"):
            RabbitMQBroker([url], publish_timeout_seconds=1)

    def test_it_runs_on_uvloop(self, setting: Setting) -> None:
        async def publish(messages: list[Message]) -> set[str]:
            broker = RabbitMQBroker([setting.url], publish_timeout_seconds=10)
            await broker.start()
            try:
                await broker.declare(["default"])
                return await broker.publish(messages)
            finally:
                await broker.stop()

        messages = [a_message(WORK) for _ in range(300)]

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(publish(messages)) == {message.id for message in messages}

    def test_a_node_with_a_certificate_that_we_trust_is_spoken_to_in_secret(
        self, trusted_certificate: Path, setting: Setting, broker: DrivenBroker, drive: Drive, new_proxy: NewProxy
    ) -> None:
        secret = drive(lambda: setting.build(_over_tls(setting, new_proxy, trusted_certificate)))

        assert secret.publishes_again(WORK)

    def test_a_node_with_a_certificate_that_nobody_vouches_for_is_not_spoken_to(
        self, certificate: Path, setting: Setting, drive: Drive, new_proxy: NewProxy
    ) -> None:
        stranger = drive(lambda: setting.build(_over_tls(setting, new_proxy, certificate)))

        with pytest.raises(BrokerUnavailable, match="certificate verify failed"):
            stranger.depths([WORK])

    @pytest.mark.faults
    @pytest.mark.slow
    def test_silence_is_noticed_while_nobody_publishes_and_idleness_is_not_taken_for_it(
        self,
        setting: Setting,
        rabbitmq: RabbitMQ,
        drive: Drive,
        new_proxy: NewProxy,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level("INFO")
        proxy = new_proxy(setting.port)
        # The node gives up one that says nothing after three intervals: before the other one's silence is noticed.
        with _heartbeats_every(rabbitmq, 2):
            idle = drive(lambda: setting.build(setting.url))
            eventually(lambda: idle.connected)
        with _heartbeats_every(rabbitmq, 4):
            silenced = drive(lambda: setting.build(setting.url_at(proxy.port)))
            eventually(lambda: silenced.connected)

        proxy.hang()

        assert eventually(lambda: not silenced.connected, within_seconds=60)
        assert idle.connected
        assert caplog.text.count("Connected to the broker") == 2, "one of them was connected anew"

    @pytest.mark.faults
    def test_a_dropped_connection_is_replaced_while_nobody_publishes(
        self, setting: Setting, drive: Drive, new_proxy: NewProxy
    ) -> None:
        proxy = new_proxy(setting.port)
        broker = drive(lambda: setting.build(setting.url_at(proxy.port)))
        eventually(lambda: broker.connected)
        proxy.refuse()
        eventually(lambda: not broker.connected)

        proxy.resume()

        assert eventually(lambda: broker.connected, within_seconds=20)

    @pytest.mark.faults
    def test_a_confirm_that_comes_after_its_time_counts_for_no_other_message(
        self, setting: Setting, broker: DrivenBroker, drive: Drive, new_proxy: NewProxy
    ) -> None:
        proxy = new_proxy(setting.port)
        through = drive(lambda: setting.build(setting.url_at(proxy.port), timeout_seconds=IMPATIENT_SECONDS))
        assert through.publishes_again(WORK)
        proxy.hang()
        late = [a_message(WORK) for _ in range(10)]
        assert through.publish(late) == set()
        proxy.resume()

        lost = a_message("jobs.nowhere.normal")
        eventually(lambda: through.connected, within_seconds=20)

        assert through.publish([lost]) == set()

    @pytest.mark.faults
    @pytest.mark.slow
    def test_a_memory_alarm_holds_no_publish_up_and_passes(self, rabbitmq: RabbitMQ, impatient: DrivenBroker) -> None:
        rabbitmq.set_memory_alarm(on=True)
        try:
            blocked = eventually(lambda: not impatient.publish([a_message(WORK) for _ in range(500)]))
            depths = impatient.depths([DEAD])
        finally:
            rabbitmq.set_memory_alarm(on=False)

        assert (blocked, depths) == (True, {DEAD: 0})
        assert impatient.publishes_again(WORK)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, with its key in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl found")
    folder = tmp_path_factory.mktemp("certificate")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run([openssl, "req", *kind, *names, *files], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return both


@pytest.fixture
def trusted_certificate(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, trusted by everything that trusts what the system does."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return certificate


@contextmanager
def _heartbeats_every(node: RabbitMQ, seconds: int) -> Iterator[None]:
    """Have a node offer this interval to the connections that are made meanwhile."""
    change = (
        "{{ok, Before}} = application:get_env(rabbit, heartbeat), application:set_env(rabbit, heartbeat, {}), Before."
    )
    before = node.control("eval", change.format(seconds)).strip()
    try:
        yield
    finally:
        node.control("eval", change.format(before))


def _over_tls(setting: Setting, new_proxy: NewProxy, certificate: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return setting.url_at(new_proxy(setting.port, context).port).replace("amqp://", "amqps://")


def _reject(url: str, message: Message) -> None:
    with kombu.Connection(url) as connection:
        channel = connection.default_channel
        connection.Producer().publish(
            message.body,
            routing_key=message.routing_key,
            headers=dict(message.headers),
            content_type="application/json",
            content_encoding="utf-8",
        )
        taken = eventually(kombu.Queue(message.routing_key, channel=channel).get)
        assert taken is not None
        taken.reject()
