"""Celery's consumer, rebuilt where it matters: no message kills it, a lost broker does not stop it, and it drains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import WorkerShutdown
from celery.utils import threads
from celery.worker import loops
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu import Queue
from kombu.exceptions import OperationalError

from taskplatform.telemetry import logger
from taskplatform.topology import queues
from workers.deliveries import Deliveries
from workers.mail import Mail
from workers.parent import Parent
from workers.receipts import AmqpReceipts, Receipts, RedisReceipts
from workers.shares import worth_changing

# The stubs do not know them.
_Blueprint: Any = Consumer.Blueprint
_threads: Any = threads

_PASS_SECONDS = 0.05
_RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0)
_LAST_WORDS_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_LOWER_SECONDS = 5.0

_log = logger(__name__)


class HotConsumer(Consumer):
    """Hands every message to the worker's parent, and keeps the event loop turning while the broker is away."""

    class Blueprint(_Blueprint):
        """The steps of a consumer without delayed delivery (jobs wait in Postgres) and remote control (see Remote)."""

        default_steps = tuple(
            step for step in _Blueprint.default_steps if not step.endswith((":DelayedDelivery", ":Agent", ":Control"))
        )

    # Set by Celery.
    app: Any
    controller: Any
    hub: Any
    connection: Any
    task_consumer: Any
    qos: Any
    connection_errors: tuple[type[Exception], ...]
    channel_errors: tuple[type[Exception], ...]

    parent: Parent
    initial_prefetch_count: int
    _prefetch_changed = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parent = self.controller.parent
        self._prefetch = self.initial_prefetch_count = self.parent.admission.prefetch(0)
        self._mail = Mail(self.parent.admission, self.app.settings.signing_secrets())

    def start(self) -> None:
        """Run until told to stop; a warm shutdown drains before it goes on, also while the broker is away."""
        try:
            super().start()
        except WorkerShutdown:
            self._drain()
            raise

    def update_strategies(self) -> None:
        """Nothing here needs Celery's strategies; the children build their own tracers."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, and meanwhile run on: outcomes are recorded and the lease is kept while the broker is away."""
        for tried in range(1_000_000_000):
            maybe_shutdown()
            try:
                conn.ensure_connection(max_retries=max(len(conn.alt), 1), interval_start=0, interval_step=0)
            except (OperationalError, *conn.recoverable_connection_errors) as error:
                if tried in (0, 1) or tried % 30 == 0:
                    _log.warning("the broker cannot be reached, will try again", error=str(error))
                self._turn_for(_RECONNECT_SECONDS[min(tried, len(_RECONNECT_SECONDS) - 1)])
            else:
                self._declare(conn)
                self.first_connection_attempt = False
                self.broker_connection_retry_attempt = 0
                return conn
        return conn

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Take up work on a fresh channel; called at every consumer start."""
        channel = self.task_consumer.channel
        amqp = self.connection.transport.driver_type == "amqp"
        receipts: Receipts = AmqpReceipts(channel) if amqp else RedisReceipts(channel)
        parent = self.parent
        if amqp:
            wire = self.connection.connection
            wire.quick_channel = channel.channel_id
            wire.deliveries = Deliveries(channel.channel_id, channel.callbacks, self._mail)
        parent.channel_lost()
        parent.attach(self.hub, receipts)
        self._prefetch = self.initial_prefetch_count
        self.hub.call_later(_LOOK_SECONDS, self._adapt_prefetch, receipts)

        def on_message(message: Any) -> None:
            body = message.body
            raw = body if isinstance(body, bytes) else str(body or "").encode("utf-8", "surrogatepass")
            content = {"content_type": message.content_type, "content_encoding": message.content_encoding}
            parent.admission.received(message.headers, bytes(raw), content, message.delivery_tag)

        return on_message

    def loop(self, *args: Any) -> None:
        """Run Celery's event loop."""
        try:
            loops.asynloop(*args)
        except Exception:
            self.parent.channel_lost()
            raise

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Dead-letter what kombu itself could not read."""
        _log.warning("an undecodable message was rejected", error=str(exc)[:500])
        message.reject_log_error(_log, self.connection_errors)

    def on_close(self) -> None:
        """Nothing is dropped with a connection: what is claimed runs on."""

    def _declare(self, conn: Any) -> None:
        with conn.channel() as channel:
            for one in queues([self.app.settings.worker_pool]):
                Queue(one.name, queue_arguments=dict(one.arguments), durable=True, channel=channel).declare()

    def _adapt_prefetch(self, receipts: Receipts) -> None:
        # A slow task must not hoard messages that other workers could run; a quick one must not wait for them.
        parent = self.parent
        if not parent.has(receipts) or parent.pipeline.draining:
            return
        self.hub.call_later(_LOOK_SECONDS, self._adapt_prefetch, receipts)
        wanted = parent.pipeline.prefetch_jobs()
        wish = parent.admission.prefetch(wanted)
        now = time.monotonic()
        if not worth_changing(self._prefetch, wish, receipts.deliveries) or (
            wish < self.initial_prefetch_count and now - self._prefetch_changed < _LOWER_SECONDS
        ):
            return
        self._prefetch, self._prefetch_changed = wish, now
        # RabbitMQ counts what each consumer holds: to a new one, what came by the last is nothing.
        count = parent.admission.prefetch_anew(wanted) if isinstance(receipts, AmqpReceipts) else wish
        self.initial_prefetch_count = count
        self.qos.value = self.qos.prev = count
        self.task_consumer.cancel()
        self.task_consumer.qos(prefetch_count=count, apply_global=False)
        self.task_consumer.consume()

    def _turn_for(self, seconds: float) -> None:
        hub = self.hub
        if hub is None:
            time.sleep(seconds)
            return
        self.parent.attach(hub, None)
        self._turn_until(lambda: False, seconds)

    def _turn_until(self, done: Callable[[], bool], seconds: float) -> bool:
        hub = self.hub
        deadline = time.monotonic() + seconds
        passing = hub.create_loop()
        while not done() and time.monotonic() < deadline:
            hub.call_later(_PASS_SECONDS, _nothing)
            try:
                next(passing)
            except StopIteration:
                passing = hub.create_loop()
            except self.connection_errors + self.channel_errors as error:
                _log.info("the broker went away", error=str(error))
                self.parent.channel_lost()
                hub.reset()
                self.parent.attach(hub, None)
                passing = hub.create_loop()
        return done()

    def _take_no_more(self) -> None:
        consumer = self.task_consumer
        try:
            if self.connection.transport.driver_type != "amqp":
                consumer.cancel()
                return
            # Consumer.cancel() waits for the broker to agree, and one that stands still never does.
            for tag in consumer._active_tags.values():
                consumer.channel.basic_cancel(tag, nowait=True)
            # Celery would cancel them once more.
            consumer._active_tags.clear()
        except self.connection_errors + self.channel_errors:
            self.parent.channel_lost()

    def _drain(self) -> None:
        parent = self.parent
        _log.info("draining", claimed=parent.pipeline.taken)
        if parent.has(None):
            # Whoever lost the broker has nothing more to be told by it, and may have lost the hub's alarms as well.
            parent.attach(self.hub, None)
        else:
            self._take_no_more()
        parent.drain()
        settings = self.app.settings
        if not self._turn_until(
            lambda: parent.drained or bool(worker_state.should_terminate), settings.worker_drain_seconds
        ):
            _log.warning("jobs are still running after the drain time and are given back", jobs=parent.pipeline.taken)
        if not parent.drained:
            parent.pool.kill_all()
            self._turn_until(lambda: parent.drained, _LAST_WORDS_SECONDS)
        ended: list[bool] = []
        parent.end(lambda: ended.append(True))
        self._turn_until(lambda: bool(ended), _LAST_WORDS_SECONDS)
        # One more pass for acknowledgements that follow the last commit.
        self._turn_until(lambda: False, _PASS_SECONDS)
        parent.close()
        # What Celery says last waits for an answer, and would for ever where the broker stands still.
        _threads.bound_open_broker_sockets(self.connection, _LAST_WORDS_SECONDS)
        _log.info("drained")


def _nothing() -> None:
    pass
