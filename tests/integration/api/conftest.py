"""A running HTTP service on a database and a virtual host of the test's own."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx2
import psycopg
import pytest
import uvicorn
from starlette.types import ASGIApp

from api.app import create_app
from taskplatform import settings, wiring
from taskplatform.auth import Scope, new_key
from taskplatform.job import AttemptEnd, Reason, State
from taskplatform.servers import Postgres, RabbitMQ, free_ports
from taskplatform.settings import Settings
from taskplatform.store.opening import opened
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.store.statements import turn_calls
from taskplatform.store.working import ClaimRequest, Ended
from taskplatform.task import TaskSpec, task
from tests.fixtures.servers import Vhost, new_vhost
from tests.fixtures.store import new_database
from tests.fixtures.waiting import eventually

SECRET = "a secret of the tests of more than 32 characters"
EVERY_SCOPE = (Scope.WRITE, Scope.READ, Scope.CANCEL, Scope.REPLAY)


@task(name="photos.thumbnail")
def thumbnail(path: str, size: int = 128, *, options: dict[str, Any] | None = None) -> None:
    """Take a path, a size and options."""


TASKS = (thumbnail.spec, TaskSpec(name="anything", takes_more_positional=True))


@dataclass(kw_only=True)
class Service:
    """One running API process, as a thread."""

    url: str
    settings: Settings
    database: str
    clients: list[httpx2.Client] = field(default_factory=list)

    def client(self, tenant: str = "acme", *scopes: Scope) -> httpx2.Client:
        """Give a client with a key of that tenant."""
        key = add_key(self.database, tenant, scopes or EVERY_SCOPE)
        return self.bare_client(Authorization=f"Bearer {key}")

    def bare_client(self, **headers: str) -> httpx2.Client:
        """Give a client that sends these headers and no other."""
        client = httpx2.Client(base_url=self.url, headers=headers, timeout=30)
        self.clients.append(client)
        return client

    def close(self) -> None:
        """Close the clients."""
        for client in self.clients:
            client.close()
        self.clients.clear()

    def forget(self) -> None:
        """Delete all jobs, dead letters, keys of submissions and records, for the next test with this service."""
        with psycopg.connect(self.database) as connection:
            connection.execute("TRUNCATE jobs, finished_jobs, attempts, outbox, dead_letters, idempotency_keys, audit")

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(query, parameters).fetchall()

    def stored(self) -> int:
        """Count the live jobs."""
        return int(self.rows("SELECT count(*) FROM jobs")[0][0])


def with_store(database: str, use: Callable[[PostgresStore], Awaitable[Any]]) -> Any:
    """Run something on a store of its own."""

    async def run() -> Any:
        async with opened(PostgresStore(database)) as store:
            return await use(store)

    return asyncio.run(run())


def add_key(database: str, tenant: str, scopes: tuple[Scope, ...]) -> str:
    """Make an API key and give its text."""
    stored, text = new_key(tenant, scopes)
    with_store(database, lambda store: store.add_key(stored))
    return text


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an application on a free port, and stop it in order."""
    port = free_ports(1)[0]
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=port,
            http="api.protocol:Protocol",
            log_config=None,
            access_log=False,
            loop="uvloop",
            timeout_graceful_shutdown=5,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started or not thread.is_alive(), within_seconds=20)
    assert server.started, "the service did not start"
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def api_settings(database: str, vhost: Vhost) -> Settings:
    """Settings of a service on this test's database and virtual host, whose queues exist."""
    return _prepared(database, vhost)


def _prepared(database: str, vhost: Vhost) -> Settings:
    with_store(database, lambda store: store.announce(TASKS))
    loaded = settings.load(
        {},
        database_url=database,
        broker_url=vhost.url,
        signing_keys=SECRET,
        pools="default,bulk",
        publish_timeout_seconds=2,
        api_drain_seconds=0,
    )
    declare(loaded)
    return loaded


def declare(loaded: Settings) -> None:
    """Declare the queues."""

    async def run() -> None:
        broker = wiring.new_broker(loaded)
        await broker.start()
        try:
            await broker.declare(loaded.pools)
        finally:
            await broker.stop()

    asyncio.run(run())


@pytest.fixture
def service(api_settings: Settings, database: str) -> Iterator[Service]:
    """A running service, connected to its broker."""
    with _running(api_settings, database) as running:
        yield running


@pytest.fixture(scope="module")
def lasting_service(postgres: Postgres, migrated_template: str, rabbitmq: RabbitMQ) -> Iterator[Service]:
    """A running service for all tests of a file that leave it well."""
    with (
        new_database(postgres, migrated_template) as database,
        new_vhost(rabbitmq) as vhost,
        _running(_prepared(database, vhost), database) as running,
    ):
        yield running


@pytest.fixture
def empty_service(lasting_service: Service) -> Iterator[Service]:
    """The service of the file, without jobs or dead letters, and what was done to them."""
    lasting_service.forget()
    yield lasting_service
    lasting_service.close()


@contextmanager
def _running(loaded: Settings, database: str) -> Iterator[Service]:
    with serving(create_app(loaded)) as url:
        running = Service(url=url, settings=loaded, database=database)
        eventually(lambda: httpx2.get(f"{url}/readyz").json()["status"] == "ready", within_seconds=20)
        yield running
        running.close()


def run_job(database: str, job_id: str, ending: State, *, result: str | None = None, error: str | None = None) -> None:
    """Claim a queued job and end it, as a worker does."""
    job = UUID(job_id)
    _turn(database, [], ClaimRequest(worker="w1", token=str(uuid4()), wanted=[(job, -1)]))
    attempt, now = attempt_of(database, job_id), time.time()
    end = AttemptEnd.SUCCEEDED if ending is State.SUCCEEDED else AttemptEnd.FAILED
    reason = Reason.ATTEMPTS_EXHAUSTED if ending is State.DEAD else None
    ended = Ended(
        id=job,
        attempt=attempt,
        state=ending,
        end=end,
        started=now,
        stopped=now,
        reason=reason,
        result=result,
        error=error,
    )
    _turn(database, [ended], None)


def start_job(database: str, job_id: str) -> None:
    """Claim a queued job and leave it running."""
    _turn(database, [], ClaimRequest(worker="w1", token=str(uuid4()), wanted=[(UUID(job_id), -1)]))


def attempt_of(database: str, job_id: str) -> int:
    """Read the fencing number of a live job."""
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT attempt FROM jobs WHERE id = %s", (job_id,)).fetchone()
    assert row is not None
    return int(row[0])


def _turn(database: str, endings: list[Ended], claim: ClaimRequest | None) -> None:
    with psycopg.connect(database, cursor_factory=psycopg.RawCursor) as connection:
        for call in turn_calls(endings, claim):
            connection.execute(call.sql.encode(), call.parameters)
