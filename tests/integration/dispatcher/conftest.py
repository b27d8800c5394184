"""The dispatcher's roles on a real Postgres and a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from taskplatform.broker.contract import Broker
from taskplatform.dispatcher import Dispatcher
from taskplatform.expirer import Expirer
from taskplatform.job import NewJob, Priority, State
from taskplatform.publish import Publisher
from taskplatform.relay import Relay, StrandedRelay
from taskplatform.rescuer import Rescuer
from taskplatform.retention import Retention
from taskplatform.retention_rules import policy_of
from taskplatform.servers import free_ports
from taskplatform.service import Role
from taskplatform.settings import Settings, load
from taskplatform.store.contract import QUEUE_FULL
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.telemetry import Metrics, new_metrics
from taskplatform.topology import work_queue
from taskplatform.undertaker import Undertaker
from taskplatform.wiring import new_broker
from tests.fixtures.broker import drain
from tests.fixtures.servers import Vhost
from tests.fixtures.store import DrivenStore, a_job
from tests.fixtures.waiting import eventually

KEY = "a key for the tests of dispatchers"
QUEUE = work_queue("default", Priority.NORMAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What roles are played on; `settings` name its database and its broker. All tasks let `bundle_jobs` travel."""

    store: DrivenStore
    broker: Broker
    settings: Settings
    metrics: Metrics = field(default_factory=new_metrics)
    bundle_jobs: int = 1

    @property
    def publish(self) -> Publisher:
        """Publish what a role hands over."""
        return Publisher(self.broker, KEY.encode(), self.metrics, lambda task: self.bundle_jobs)

    @property
    def broker_url(self) -> str:
        """Where the messages are."""
        return self.settings.broker_url.get_secret_value()

    def dispatcher(self, store: PostgresStore | None = None, **settings: Any) -> Dispatcher:
        """Make a dispatcher; `settings` differ from the stage's."""
        chosen = self.settings.changed(**settings)
        return Dispatcher(store or self.store.services, self.broker, self.publish, chosen)

    def relay(self, **settings: Any) -> Relay:
        """Make a relay."""
        return Relay(self.store.services, self.broker, self.publish, self.settings.changed(**settings))

    def stranded_relay(self, **settings: Any) -> StrandedRelay:
        """Make the relay of lost messages."""
        return StrandedRelay(self.store.services, self.broker, self.publish, self.settings.changed(**settings))

    def rescuer(self) -> Rescuer:
        """Make a rescuer."""
        return Rescuer(self.store.services, self.metrics, self.settings)

    def expirer(self) -> Expirer:
        """Make an expirer."""
        return Expirer(self.store.services, self.metrics, self.settings)

    def retention(self) -> Retention:
        """Make what prunes."""
        return Retention(self.store.services, self.metrics, policy_of(self.settings))

    def undertaker(self, **settings: Any) -> Undertaker:
        """Make an undertaker."""
        singly = Publisher(self.broker, KEY.encode(), self.metrics)
        return Undertaker(self.store.services, self.broker, singly, self.settings.changed(**settings))

    def play(self, role: Role) -> None:
        """Do rounds until there is nothing more to do at once."""
        while self.store.wait(role.run_once()):
            pass

    @contextmanager
    def playing(self, *roles: Role) -> Iterator[None]:
        """Run roles meanwhile."""
        stop = self.store.wait(_event())
        runs = [self.store.begin(role.run(stop)) for role in roles]
        try:
            yield
        finally:
            self.store.wait(_set(stop))
            for run in runs:
                run.result(60)

    def accept(self, count: int = 1, **changes: Any) -> list[NewJob]:
        """Hand jobs in as one batch."""
        jobs = [a_job(**changes) for _ in range(count)]
        self.store.accept(*jobs)
        return jobs

    def accept_due(self, count: int = 1) -> list[NewJob]:
        """Hand in jobs whose time comes now, by the clock of the database."""
        return self.accept(count, state=State.SCHEDULED, due_at=self.database_time())

    def accept_blocked(self, count: int = 1) -> list[NewJob]:
        """Hand in jobs that wait for room in their queue."""
        return self.accept(count, state=State.BLOCKED, blocked_on=QUEUE_FULL)

    def database_time(self, later_seconds: float = 0.0) -> datetime:
        """Read the database's clock, and add some seconds."""
        ((now,),) = self.store.rows("SELECT now() + make_interval(secs => %s)", later_seconds)
        assert isinstance(now, datetime)
        return now

    def states(self, jobs: list[NewJob]) -> set[State]:
        """Tell which states the jobs are in."""
        return {job.state for job in self.store.wait(self.store.services.get([job.id for job in jobs])).values()}

    @contextmanager
    def holding(self, job: NewJob) -> Iterator[None]:
        """Lock a job's row meanwhile, as another dispatcher does."""
        with psycopg.connect(self.store.dsn) as connection:
            connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [job.id])
            yield

    def outbox_rows(self) -> int:
        """Count outbox rows."""
        ((count,),) = self.store.rows("SELECT count(*) FROM outbox")
        return int(count)

    def delivered(self, queue: str = QUEUE) -> list[UUID]:
        """Take everything out of a queue; gives the ids of its jobs, doubled messages twice."""
        return [UUID(message.headers["id"]) for message in drain(self.broker_url, queue)]

    def delivers(self, jobs: list[NewJob], within_seconds: float = 30.0) -> list[UUID]:
        """Wait until there was a message for each of the jobs; gives all messages until then."""
        seen: list[UUID] = []

        def complete() -> bool:
            if self.store.wait(self.broker.depths([QUEUE]))[QUEUE]:
                seen.extend(self.delivered())
            return {job.id for job in jobs} <= set(seen)

        eventually(complete, within_seconds)
        return seen


@pytest.fixture
def rabbit_settings(database: str, vhost: Vhost) -> Settings:
    """The settings of a dispatcher with RabbitMQ."""
    return _settings(database, vhost.url)


@pytest.fixture
def redis_settings(database: str, redis_db: str) -> Settings:
    """The settings of a dispatcher with the embedded broker."""
    return _settings(database, redis_db)


@pytest.fixture(params=["rabbit_settings", "redis_settings"])
def settings(request: pytest.FixtureRequest) -> Settings:
    """The settings of a dispatcher with one broker and with the other."""
    chosen = request.getfixturevalue(request.param)
    assert isinstance(chosen, Settings)
    return chosen


@pytest.fixture
def new_stage(store: DrivenStore) -> Iterator[Callable[[Settings], Stage]]:
    """Makes stages on the test's database; their brokers are stopped when the test ends."""
    brokers: list[Broker] = []

    def make(settings: Settings) -> Stage:
        broker = store.wait(_started(settings))
        brokers.append(broker)
        return Stage(store=store, broker=broker, settings=settings)

    yield make
    for broker in brokers:
        store.wait(broker.stop())


@pytest.fixture
def rabbit_stage(new_stage: Callable[[Settings], Stage], rabbit_settings: Settings) -> Stage:
    """A stage with RabbitMQ, its queues declared."""
    return _connected(new_stage(rabbit_settings))


@pytest.fixture
def brokerless_stage(new_stage: Callable[[Settings], Stage], database: str) -> Stage:
    """A stage whose RabbitMQ is away."""
    return new_stage(_settings(database, f"amqp://guest:guest@127.0.0.1:{free_ports(1)[0]}//"))


@pytest.fixture
def stage(new_stage: Callable[[Settings], Stage], settings: Settings) -> Stage:
    """A stage with one broker and with the other."""
    return _connected(new_stage(settings))


def _settings(dsn: str, broker_url: str) -> Settings:
    return load(
        {},
        database_url=dsn,
        broker_url=broker_url,
        signing_keys=KEY,
        relay_after_seconds=0.0,
        publish_timeout_seconds=5.0,
    )


def _connected(stage: Stage) -> Stage:
    stage.store.wait(stage.broker.declare(stage.settings.pools))
    eventually(lambda: stage.broker.connected, within_seconds=30)
    return stage


async def _started(settings: Settings) -> Broker:
    broker = new_broker(settings)
    await broker.start()
    return broker


async def _event() -> asyncio.Event:
    return asyncio.Event()


async def _set(event: asyncio.Event) -> None:
    event.set()
