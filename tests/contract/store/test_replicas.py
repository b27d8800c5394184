"""What a replica may answer, and what is asked of the primary: the primary is behind a proxy that can be closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest

from taskplatform.errors import SettingsError, StoreUnavailable
from taskplatform.freshness import LATEST, START, Position
from taskplatform.job import AttemptEnd, Job, NewJob, State
from taskplatform.servers import Postgres, free_ports
from taskplatform.store.contract import JobFilter, LetterFilter
from taskplatform.store.postgres.store import PostgresStore
from tests.fixtures.proxy import NewProxy, Proxy
from tests.fixtures.replica import Standby
from tests.fixtures.store import TENANT, DrivenStore, NewStore, a_job, death, retry, success
from tests.fixtures.waiting import eventually


@pytest.fixture
def primary(database: str, new_proxy: NewProxy) -> Proxy:
    """The way to the primary."""
    return new_proxy(urlsplit(database).port or 0)


@pytest.fixture
def replicated(database: str, primary: Proxy, standby: Standby, new_store: NewStore) -> DrivenStore:
    """A store that reads from the standby where it may."""
    dsn = database.replace(f":{urlsplit(database).port}", f":{primary.port}")
    store = new_store(dsn, replicas=[standby.dsn(database)])
    standby.catch_up()
    return store


@pytest.fixture
def empty_database(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    """Another database, in which nothing has ever happened."""
    name = f"test_{uuid4().hex[:12]}"
    yield postgres.create_database(name, template=migrated_template)
    postgres.drop_database(name)


@pytest.fixture
def writer(database: str, new_store: NewStore) -> DrivenStore:
    """Another process, which the primary is never away from."""
    return new_store(database)


def position(store: DrivenStore) -> Position:
    found = store.services.position
    assert found is not None
    return found


def looked(store: DrivenStore, job: NewJob, seen: Position) -> Job:
    return store.wait(store.services.look([job.id], seen)).jobs[job.id]


def test_a_live_job_is_read_from_a_replica_that_has_all_the_caller_has_seen(
    replicated: DrivenStore, primary: Proxy, standby: Standby
) -> None:
    job = a_job()
    replicated.accepted(job)
    standby.catch_up()

    primary.refuse()

    assert looked(replicated, job, position(replicated)).state is State.QUEUED
    assert replicated.wait(replicated.services.attempts(job.id, position(replicated))) == []
    assert replicated.wait(replicated.services.done_among([job.id], position(replicated))) == set()
    found = replicated.wait(replicated.services.search(JobFilter(tenant=TENANT), 9, position(replicated)))
    assert [each.id for each in found] == [job.id]
    assert replicated.wait(replicated.services.letters(LetterFilter(tenant=TENANT), 9, position(replicated))) == []


def test_a_replica_that_is_behind_is_not_believed(
    replicated: DrivenStore, writer: DrivenStore, standby: Standby
) -> None:
    job = a_job()
    replicated.accepted(job)
    standby.catch_up()
    with standby.held_up():
        writer.end(retry(writer.started(job), wait_seconds=60))
        assert replicated.wait(replicated.services.get([job.id]))[job.id].state is State.RETRYING
        seen = position(replicated)

        assert looked(replicated, job, seen).state is State.RETRYING
        assert [one.end for one in replicated.wait(replicated.services.attempts(job.id, seen))] == [AttemptEnd.FAILED]
        (found,) = replicated.wait(replicated.services.search(JobFilter(tenant=TENANT), 9, seen))
        assert found.state is State.RETRYING


def test_who_has_seen_less_may_be_shown_less(replicated: DrivenStore, writer: DrivenStore, standby: Standby) -> None:
    job = a_job()
    replicated.accepted(job)
    seen = position(replicated)
    standby.catch_up()

    with standby.held_up():
        writer.started(job)

        assert looked(replicated, job, seen).state is State.QUEUED
        assert looked(replicated, job, LATEST).state is State.RUNNING


def test_a_job_that_no_replica_has_yet_is_found(replicated: DrivenStore, writer: DrivenStore, standby: Standby) -> None:
    job = a_job()
    with standby.held_up():
        writer.accepted(job)

        assert looked(replicated, job, START).state is State.QUEUED


def test_a_dead_job_that_was_replayed_is_not_shown_dead(
    replicated: DrivenStore, writer: DrivenStore, standby: Standby
) -> None:
    job = a_job()
    writer.end(death(writer.running(job)))
    standby.catch_up()

    with standby.held_up():
        replicated.wait(replicated.services.replay(TENANT, [job.id]))

        assert looked(replicated, job, position(replicated)).state is State.QUEUED
        assert replicated.wait(replicated.services.done_among([job.id], position(replicated))) == set()


def test_ended_jobs_are_read_while_the_primary_is_away(
    replicated: DrivenStore, writer: DrivenStore, primary: Proxy, standby: Standby
) -> None:
    ended, live = a_job(), a_job()
    writer.end(success(writer.running(ended), result="7"))
    writer.accepted(live)
    standby.catch_up()

    primary.refuse()

    assert looked(replicated, ended, LATEST).result == "7"
    with pytest.raises(StoreUnavailable):
        looked(replicated, live, LATEST)
    with pytest.raises(StoreUnavailable):
        replicated.wait(replicated.services.look([a_job().id], START))


def test_ended_jobs_are_shown_at_once_while_the_primary_and_most_replicas_are_no_help(
    database: str, primary: Proxy, standby: Standby, new_store: NewStore, empty_database: str
) -> None:
    job, writer = a_job(), new_store(database)
    writer.end(success(writer.running(job), result="7"))
    standby.catch_up()
    gone, behind = f"postgresql://127.0.0.1:{free_ports(1)[0]}/x", standby.dsn(empty_database)
    dsn = database.replace(f":{urlsplit(database).port}", f":{primary.port}") + "?connect_timeout=600"
    store = new_store(dsn, replicas=[gone, behind, standby.dsn(database)])
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE jobs")
        reading = [store.begin(store.services.get([job.id])) for _ in range(4)]
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        eventually(lambda: writer.rows(waiting) == [(4,)], within_seconds=30)
    for one in reading:
        one.result(60)

    primary.hang()

    # Each of them is asked first once, and each time there is an idle connection to the primary.
    for _ in range(3):
        found = store.wait(store.services.look([job.id], LATEST))
        assert found.jobs[job.id].result == "7"


@pytest.mark.parametrize("harm", ["freeze", "kill"])
def test_without_a_replica_the_primary_answers(
    replicated: DrivenStore, writer: DrivenStore, standby: Standby, harm: str
) -> None:
    job, later = a_job(), a_job()
    writer.end(success(writer.running(job)))
    standby.catch_up()
    assert looked(replicated, job, START).state is State.SUCCEEDED
    server = standby.server.process

    (server.freeze if harm == "freeze" else server.kill)()
    try:
        assert looked(replicated, job, START).state is State.SUCCEEDED
        writer.accepted(later)
        assert looked(replicated, later, START).state is State.QUEUED
    finally:
        (server.thaw if harm == "freeze" else standby.server.start)()


def test_a_replica_that_came_back_is_asked_again(
    replicated: DrivenStore, writer: DrivenStore, primary: Proxy, standby: Standby
) -> None:
    job = a_job()
    writer.end(success(writer.running(job)))
    standby.catch_up()
    standby.server.kill()
    assert looked(replicated, job, START).state is State.SUCCEEDED
    standby.server.start()
    standby.catch_up()

    primary.refuse()

    eventually(_answered(lambda: looked(replicated, job, START).state is State.SUCCEEDED), within_seconds=30)


def test_a_replica_whose_standing_may_not_be_asked_shows_what_never_changes_alone(
    database: str, standby: Standby, writer: DrivenStore, new_store: NewStore
) -> None:
    role = "reader_without_rights"
    writer.rows(f"DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    writer.rows(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    limited = new_store(database, replicas=[standby.dsn(database).replace("postgres@", f"{role}@")])
    job = a_job()
    limited.accepted(job)
    standby.catch_up()
    with standby.held_up():
        writer.started(job)

        assert looked(limited, job, START).state is State.RUNNING


def test_a_replica_in_the_place_of_the_primary_is_refused(database: str, standby: Standby, new_store: NewStore) -> None:
    turned = new_store(standby.dsn(database), replicas=[database])

    with pytest.raises(StoreUnavailable):
        turned.accept(a_job())


def test_a_malformed_replica_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="database_replica_urls"):
        PostgresStore(f"postgresql://127.0.0.1:{free_ports(1)[0]}/x", replicas=["host = 1 nonsense"])


def test_a_store_without_replicas_keeps_no_count(store: DrivenStore) -> None:
    store.accepted(a_job())

    assert store.services.position is None


def _answered(question: Callable[[], bool]) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            return question()
        except StoreUnavailable:
            return False

    return ask
