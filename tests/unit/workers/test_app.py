"""How the Celery app is configured."""

import importlib
from typing import Any

import pytest
from celery.exceptions import Retry
from kombu import Exchange

from taskplatform.payload import admit
from taskplatform.settings import Settings, load
from taskplatform.task import TaskSpec
from workers.app import PlatformApp, new_app

KEY = "k" * 32


@pytest.fixture
def settings() -> Settings:
    return load({}, signing_keys=KEY, pools="default,images")


@pytest.fixture
def app(settings: Settings) -> PlatformApp:
    return new_app(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accept_content", ["json"]),
        ("result_accept_content", ["json"]),
        ("task_serializer", "json"),
        ("task_protocol", 2),
        ("task_create_missing_queues", False),
        ("task_acks_late", True),
        ("worker_enable_remote_control", True),
        ("worker_send_task_events", False),
        ("broker_connection_retry_on_startup", True),
        ("broker_connection_max_retries", None),
        ("worker_hijack_root_logger", False),
        ("worker_consumer", "workers.consumer:HotConsumer"),
        ("worker_pool", "workers.prefork:ChunkPool"),
        ("result_backend", "workers.backend:ResultBackend"),
    ],
)
def test_a_setting_that_safety_hangs_on_has_its_value(app: PlatformApp, name: str, value: object) -> None:
    assert app.conf[name] == value


def test_the_queues_are_those_of_the_topology(app: PlatformApp) -> None:
    queues = {queue.name: queue for queue in app.conf.task_queues}

    assert set(queues) == {
        f"jobs.{pool}.{kind}" for pool in ("default", "images") for kind in ("high", "normal", "low", "dead")
    }
    work = queues["jobs.images.low"]
    assert work.exchange == Exchange("", type="direct")
    assert work.queue_arguments["x-dead-letter-routing-key"] == "jobs.images.dead"
    assert work.queue_arguments["x-queue-type"] == "quorum"


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("amqp://127.0.0.1//", "workers.transport:AmqpTransport"),
        ("redis://127.0.0.1/0", "workers.redis_transport:RedisTransport"),
    ],
)
def test_the_transport_follows_the_url(url: str, transport: str) -> None:
    app = new_app(load({}, signing_keys=KEY, broker_url=url))

    assert app.conf.broker_transport == transport
    module, _, name = transport.partition(":")
    assert hasattr(importlib.import_module(module), name)


class _Producer:
    def __init__(self) -> None:
        self.published: list[tuple[Any, dict[str, Any]]] = []

    def publish(self, body: Any, **options: Any) -> None:
        self.published.append((body, options))


def test_a_message_of_a_celery_producer_passes_admission(app: PlatformApp) -> None:
    producer = _Producer()
    amqp: Any = app.amqp
    message = amqp.create_task_message(
        "0b8a1c5e-9d8e-4a3f-8f0e-2f0b7c6d5e4f", "some.task", [1], {"a": "b"}, countdown=60
    )

    amqp.send_task_message(producer, "some.task", message, queue="jobs.images.high", serializer="pickle")

    ((body, options),) = producer.published
    envelope = admit(options["headers"], body, options, [KEY.encode()], allow_unsigned=False)
    assert (envelope.task, envelope.tenant, envelope.pool, envelope.priority) == (
        "some.task",
        "default",
        "images",
        "high",
    )
    assert envelope.series is None
    assert envelope.due_at is not None
    assert envelope.task_version == 1
    assert options["routing_key"] == "jobs.images.high"


def test_a_message_of_a_celery_producer_says_the_version_of_its_task(app: PlatformApp) -> None:
    def pay(order: int) -> None:
        pass

    registered: Any = app.task(name="shop.pay")(pay)
    registered.spec = TaskSpec(name="shop.pay", version=2)
    producer = _Producer()
    amqp: Any = app.amqp
    message = amqp.create_task_message("0b8a1c5e-9d8e-4a3f-8f0e-2f0b7c6d5e4f", "shop.pay", [1], {})

    amqp.send_task_message(producer, "shop.pay", message, queue="jobs.default.normal")

    ((body, options),) = producer.published
    assert admit(options["headers"], body, options, [KEY.encode()], allow_unsigned=False).task_version == 2


def test_retry_refuses_other_arguments(app: PlatformApp) -> None:
    @app.task(name="retried", bind=True)
    def retried(self: Any) -> None:
        """Do nothing."""

    task: Any = retried
    task.push_request(id="1", args=[], kwargs={}, retries=0, called_directly=False)

    with pytest.raises(Exception, match="keeps the arguments"):
        task.retry(args=[2])
    with pytest.raises(Retry):
        task.retry(countdown=3)
    assert task.request.retry_after_seconds == 3.0
    task.pop_request()


def test_an_asynchronous_worker_runs_as_many_jobs_at_once_as_are_set() -> None:
    app = new_app(load({}, signing_keys=KEY, worker_kind="async", worker_concurrency_jobs="300"))

    assert (app.conf.worker_pool, app.conf.worker_concurrency) == ("workers.asyncpool:AsyncPool", 300)
