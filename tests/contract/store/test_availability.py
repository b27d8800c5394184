import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest

from taskplatform.errors import OutcomeUnknown, StoreUnavailable
from taskplatform.job import State
from taskplatform.servers import Postgres, free_ports
from taskplatform.store.contract import Accepted, JobFilter
from taskplatform.store.opening import opened
from taskplatform.store.postgres.asking import writing
from taskplatform.store.postgres.pool import Link
from taskplatform.store.postgres.raw import RawConnection
from taskplatform.store.postgres.store import PostgresStore
from tests.fixtures.ghost import Ghost
from tests.fixtures.proxy import NewProxy
from tests.fixtures.store import TENANT, DrivenStore, NewStore, a_job, retry, success
from tests.fixtures.waiting import eventually


@pytest.fixture
def server(postgres: Postgres) -> Iterator[Postgres]:
    """The server, to stop and to change; it runs as before when the test ends."""
    yield postgres
    postgres.execute("ALTER SYSTEM RESET ALL")
    postgres.restart()


def blocked_backend(store: DrivenStore) -> int:
    # Autovacuum commits too, and waits like everybody.
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        " AND (wait_event_type = 'Lock' OR wait_event = 'SyncRep')"
    )
    ((pid,), *_) = eventually(lambda: store.rows(query), within_seconds=30)
    return int(pid)


def test_a_restart_of_the_server_goes_unnoticed(store: DrivenStore, server: Postgres) -> None:
    job, later = a_job(), a_job()
    claimed = store.running(job)

    server.kill()
    server.start()

    store.accepted(later)
    assert store.end(success(claimed)) == {job.id}
    assert store.job(job.id).state is State.SUCCEEDED


def test_without_a_server_each_call_says_so_and_the_next_one_tries_again(store: DrivenStore, server: Postgres) -> None:
    claimed = store.running()
    server.stop()

    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.accept(a_job())
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.wait(store.services.get([claimed.id]))
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.wait(store.services.search(JobFilter(tenant=TENANT), 1))
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.end(success(claimed))

    server.start()
    assert store.end(success(claimed)) == {claimed.id}


def test_a_store_opens_without_a_server(new_store: NewStore) -> None:
    store = new_store(f"postgresql://postgres@127.0.0.1:{free_ports(1)[0]}/nothing")

    store.wait(store.services.open())


def test_a_commit_that_was_cut_off_is_unknown_and_the_same_again_is_safe(store: DrivenStore, database: str) -> None:
    job = a_job(key="k", fingerprint="f")
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE jobs")
        accepting = store.begin(store.services.accept([job]))
        other.execute("SELECT pg_terminate_backend(%s)", [blocked_backend(store)])

        with pytest.raises(OutcomeUnknown):
            accepting.result(60)

    store.accepted(job)


def test_a_read_that_was_cut_off_is_asked_again(store: DrivenStore, database: str) -> None:
    job = a_job()
    store.accepted(job)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE jobs")
        reading = store.begin(store.services.get([job.id]))
        other.execute("SELECT pg_terminate_backend(%s)", [blocked_backend(store)])

    assert set(reading.result(60)) == {job.id}


def test_a_commit_that_stopped_waiting_for_its_standby_is_unknown(store: DrivenStore, ghost: Ghost) -> None:
    job = a_job()
    ghost.want()

    accepting = store.begin(store.services.accept([job]))
    store.rows("SELECT pg_cancel_backend(%s)", blocked_backend(store))

    with pytest.raises(OutcomeUnknown, match="standby"):
        accepting.result(60)


@pytest.mark.parametrize("key", [None, "order-1"])
def test_the_same_again_after_an_unknown_commit_waits_for_the_standby_too(
    store: DrivenStore, ghost: Ghost, key: str | None
) -> None:
    job = a_job(key=key, fingerprint="same" if key else None)
    ghost.want()

    for _ in range(2):
        accepting = store.begin(store.services.accept([job]))
        store.rows("SELECT pg_cancel_backend(%s)", blocked_backend(store))
        with pytest.raises(OutcomeUnknown, match="standby"):
            accepting.result(60)


def test_a_deadlock_is_no_error(store: DrivenStore, database: str) -> None:
    first, second = a_job(), a_job()
    store.accept(first, second)
    with psycopg.connect(database) as other:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [second.id])
        cancelling = store.begin(store.services.cancel(TENANT, [first.id, second.id]))
        blocked_backend(store)

        other.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [first.id])

    assert cancelling.result(60) == {first.id, second.id}


def test_the_host_that_takes_writes_is_used(database: str, new_store: NewStore) -> None:
    real = urlsplit(database)
    gone = free_ports(1)[0]

    store = new_store(f"postgresql://postgres@127.0.0.1:{gone},127.0.0.1:{real.port}{real.path}")

    store.accepted(a_job())


def test_a_host_that_stands_still_keeps_nobody_from_the_one_that_takes_writes(
    database: str, new_proxy: NewProxy, new_store: NewStore
) -> None:
    real = urlsplit(database)
    silent = new_proxy(real.port or 0)
    silent.hang()
    hosts = f"127.0.0.1:{silent.port},127.0.0.1:{real.port}"
    dsn = f"postgresql://postgres@{hosts}{real.path}?connect_timeout=600"

    new_store(dsn).accepted(a_job())
    with ThreadPoolExecutor() as apart:
        made = apart.submit(RawConnection, dsn)
        try:
            made.result(60).close()
        finally:
            silent.stop()


def test_connections_that_are_idle_are_given_up_with_one_that_stands_still(
    database: str, new_proxy: NewProxy, new_store: NewStore
) -> None:
    real = urlsplit(database)
    proxy = new_proxy(real.port or 0)
    store = new_store(database.replace(f":{real.port}/", f":{proxy.port}/"))
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE jobs")
        reading = [store.begin(store.services.get([a_job().id])) for _ in range(2)]
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with psycopg.connect(database, autocommit=True) as watch:
            eventually(lambda: watch.execute(query).fetchone() == (2,), within_seconds=30)
    for one in reading:
        one.result(60)
    proxy.hang()

    with pytest.raises(OutcomeUnknown):
        store.wait(store.services.prove(0.2))

    assert store.services._pool._idle == []


def test_a_server_that_takes_no_writes_is_left(store: DrivenStore, server: Postgres, database: str) -> None:
    store.accepted(a_job())
    name = database.rpartition("/")[2]
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    server.execute("SELECT pg_reload_conf()")
    eventually(lambda: store.rows("SHOW default_transaction_read_only") == [("on",)])

    with pytest.raises(StoreUnavailable):
        store.accept(a_job())
    with pytest.raises(StoreUnavailable):
        store.vanish()

    assert store.rows("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", name) == [(1,)]


def test_a_refusal_that_says_nothing_of_the_server_costs_one_connection(store: DrivenStore) -> None:
    pool = store.services._pool

    async def idle() -> tuple[int, int]:
        async with pool.link(), pool.link():
            pass
        before = len(pool._idle)
        with pytest.raises(StoreUnavailable, match="did not do it"):
            async with pool.link() as link, writing(link):
                raise psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
        return before, len(pool._idle)

    before, after = store.wait(idle())

    assert after == before - 1


def test_who_finds_every_connection_busy_is_told(database: str, store: DrivenStore) -> None:
    store.accepted(a_job())

    async def all_busy() -> None:
        services = PostgresStore(database, connections=1)
        services._pool._patience_seconds = 0.01
        async with opened(services), services._pool.link():
            await services.glance()

    with pytest.raises(StoreUnavailable, match="busy"):
        store.wait(all_busy())


def test_a_closed_store_says_so(store: DrivenStore) -> None:
    store.wait(store.services.close())

    with pytest.raises(StoreUnavailable, match="closed"):
        store.accept(a_job())


def test_a_waiting_dispatcher_hears_again_after_a_restart(store: DrivenStore, server: Postgres) -> None:
    store.wait(store.services.wait_for_due(5))
    waiting = store.begin(store.services.wait_for_due(3600))

    server.restart()
    waiting.result(60)
    store.wait(store.services.wait_for_due(5))
    again = store.begin(store.services.wait_for_due(3600))
    store.end(retry(store.running()))

    again.result(60)


def test_a_cancelled_call_leaves_a_store_that_works(store: DrivenStore, database: str) -> None:
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE jobs")
        accepting = store.begin(store.services.accept([a_job()]))
        blocked_backend(store)
        accepting.cancel()

    assert isinstance(store.accepted(a_job()), Accepted)


def test_a_proof_that_is_cancelled_waits_on_no_connection_that_was_closed(
    store: DrivenStore, ghost: Ghost, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghost.want()
    close = Link.close
    waited_on: list[bool] = []

    async def closing(link: Link) -> None:
        waited_on.append(asyncio.get_running_loop().remove_reader(link.pgconn.socket))
        await close(link)

    monkeypatch.setattr(Link, "close", closing)

    proving = store.begin(store.services.prove(3600))
    blocked_backend(store)
    proving.cancel()

    assert eventually(lambda: waited_on) == [False]
