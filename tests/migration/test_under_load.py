"""Migrations while others are at work on the tables: no request is refused, and who gets no table tries again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, ClassVar
from uuid import uuid4

import httpx2
import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from api.app import create_app
from taskplatform import settings
from taskplatform.job import State
from taskplatform.servers import Postgres, free_ports, started
from taskplatform.store import migrations
from taskplatform.store.postgres.migrate import migrate
from tests.fixtures.servers import Vhost
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import SECRET, TASKS, Service, declare, run_job, serving, with_store

# The present code may need the newest revision: it stands for older code, on tables to which one more revision comes.
NEXT = """
from alembic import op

revision = "next"
down_revision = "{newest}"


def upgrade() -> None:
    for table in ("tasks", "workers", "jobs", "finished_jobs", "attempts"):
        op.execute(f"ALTER TABLE {{table}} ADD COLUMN rehearsed integer NOT NULL DEFAULT 1")
"""
JOB = {"task": "anything", "args": [1]}
VERSIONS = Path(migrations.__file__).parent / "versions"
CALLERS = 3
ROUNDS = 15


def revisions() -> tuple[str, str]:
    config = Config()
    config.set_main_option("script_location", "taskplatform.store:migrations")
    newest = ScriptDirectory.from_config(config).get_revision("head")
    return str(newest.down_revision), newest.revision


def at(postgres: Postgres, revision: str) -> Iterator[str]:
    name = f"test_{uuid4().hex[:12]}"
    dsn = postgres.create_database(name)
    migrate(dsn, revision=revision)
    yield dsn
    postgres.drop_database(name)


@pytest.fixture
def older(postgres: Postgres) -> Iterator[str]:
    """The DSN of a database that is one revision behind."""
    yield from at(postgres, revisions()[0])


@pytest.fixture
def unindexed(postgres: Postgres) -> Iterator[str]:
    """The DSN of a database before the revision that replaces the index of tenants."""
    yield from at(postgres, "0006")


@pytest.fixture
def vacuumed(server_folder: Path) -> Iterator[str]:
    """The DSN of a database before a revision that changes `jobs`, on a server that vacuums soon."""
    server = Postgres(server_folder / "vacuumed", free_ports(1)[0], settings={"autovacuum_naptime": "1s"})
    with started(server):
        yield from at(server, "0011")


@pytest.fixture
def loaded(database: str, vhost: Vhost) -> Iterator[Service]:
    """A service on a database with a few thousand jobs in it."""
    with_store(database, lambda store: store.announce(TASKS))
    own = settings.load({}, database_url=database, broker_url=vhost.url, signing_keys=SECRET)
    declare(own)
    with serving(create_app(own)) as url:
        service = Service(url=url, settings=own, database=database)
        for _ in range(3):
            assert service.client().post("/v1/jobs:batch", json=[JOB] * 1000).status_code == 202
        yield service
        service.close()


class Load:
    """Callers who submit, read, list and cancel, and a worker who ends jobs, until told to stop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.stop = Event()
        self.rounds = 0
        self.refused: list[tuple[int, str]] = []

    def run(self) -> None:
        client = self._service.client()
        while not self.stop.is_set():
            job_id = self._ask(client, "POST", "/v1/jobs", json=JOB)
            self._ask(client, "GET", f"/v1/jobs/{job_id}")
            self._ask(client, "GET", "/v1/jobs", params={"state": "queued"})
            if self.rounds % 2:
                self._ask(client, "POST", f"/v1/jobs/{job_id}:cancel")
            else:
                run_job(self._service.database, job_id, State.SUCCEEDED, result="1")
            self.rounds += 1

    def _ask(self, client: httpx2.Client, method: str, path: str, **parts: Any) -> str:
        answer = client.request(method, path, **parts)
        if not answer.is_success:
            self.refused.append((answer.status_code, answer.text))
        return str(answer.json().get("id"))


def have(loads: Sequence[Load], rounds: Sequence[int]) -> bool:
    return all(load.rounds >= wanted for load, wanted in zip(loads, rounds, strict=True))


def revision_of(dsn: str) -> str:
    with psycopg.connect(dsn) as link:
        row = link.execute("SELECT version_num FROM alembic_version").fetchone()
    assert row is not None
    return str(row[0])


class OneMore(Config):
    """Where revisions are: those of the platform, and one after the newest in a folder of the test's own."""

    folder: ClassVar[Path]

    def set_main_option(self, name: str, value: str) -> None:
        super().set_main_option(name, value)
        super().set_main_option("path_separator", "os")
        super().set_main_option("version_locations", os.pathsep.join([str(VERSIONS), str(self.folder)]))


def migrate_further(dsn: str, folder: Path, patches: pytest.MonkeyPatch) -> None:
    (folder / "next.py").write_text(NEXT.format(newest=revisions()[1]))
    with patches.context() as patch:
        patch.setattr(OneMore, "folder", folder, raising=False)
        patch.setattr("taskplatform.store.postgres.migrate.Config", OneMore)
        migrate(dsn)


def test_no_request_fails_while_a_loaded_database_is_migrated(
    loaded: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = [Load(loaded) for _ in range(CALLERS)]
    assert revision_of(loaded.database) == revisions()[1]

    with ThreadPoolExecutor(CALLERS) as threads:
        runs = [threads.submit(load.run) for load in loads]
        try:
            eventually(lambda: have(loads, [ROUNDS] * CALLERS) or any(run.done() for run in runs), 60)
            migrate_further(loaded.database, tmp_path, monkeypatch)
            ahead = [load.rounds + ROUNDS for load in loads]
            eventually(lambda: have(loads, ahead) or any(run.done() for run in runs), 60)
        finally:
            for load in loads:
                load.stop.set()
        for run in runs:
            run.result(60)

    assert [load.refused for load in loads] == [[]] * CALLERS
    assert revision_of(loaded.database) == "next"


def tenants_index(dsn: str) -> tuple[int, bool]:
    """Give the number of the new index of tenants, and whether it is valid."""
    with psycopg.connect(dsn) as link:
        row = link.execute(
            "SELECT indexrelid::int, indisvalid FROM pg_index WHERE indexrelid = to_regclass('jobs_of_tenant')"
        ).fetchone()
        assert link.execute("SELECT to_regclass('jobs_tenant')").fetchone() == (None,)
    assert row is not None
    return row[0], row[1]


def test_an_index_that_waits_for_an_older_transaction_is_built_once(unindexed: str) -> None:
    builds: set[tuple[Any, ...]] = set()
    query = (
        "SELECT pid, query_start, clock_timestamp() - query_start > '3 s' FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
    )

    with psycopg.connect(unindexed) as writer, psycopg.connect(unindexed, autocommit=True) as watcher:
        writer.execute(
            "INSERT INTO jobs (id, tenant, task, pool, priority, state, max_attempts, body)"
            " VALUES (gen_random_uuid(), 't', 't', 'p', 'normal', 'queued', 1, '[]')"
        )
        with ThreadPoolExecutor(1) as threads:
            migration = threads.submit(migrate, unindexed)
            try:

                def has_waited_long() -> bool:
                    found = watcher.execute(query).fetchall()
                    builds.update((pid, began) for pid, began, _ in found)
                    return any(long for _, _, long in found)

                eventually(has_waited_long, within_seconds=30)
            finally:
                writer.commit()
            migration.result(60)

    assert len(builds) == 1
    assert tenants_index(unindexed)[1]
    assert revision_of(unindexed) == revisions()[1]


@pytest.mark.parametrize("valid", [True, False])
def test_an_upgrade_that_was_cut_short_keeps_an_index_only_if_it_is_valid(unindexed: str, valid: bool) -> None:
    with psycopg.connect(unindexed, autocommit=True) as link:
        link.execute("CREATE INDEX jobs_of_tenant ON jobs (tenant, id) WHERE tenant IS NOT NULL")
        row = link.execute("SELECT 'jobs_of_tenant'::regclass::oid::int").fetchone()
        link.execute("UPDATE pg_index SET indisvalid = %s WHERE indexrelid = 'jobs_of_tenant'::regclass", (valid,))
    assert row is not None

    migrate(unindexed)

    number, now_valid = tenants_index(unindexed)
    assert (number == row[0], now_valid) == (valid, True)


@pytest.mark.parametrize(("database_at", "table"), [("older", "alembic_version"), ("unindexed", "retention_parts")])
def test_a_migration_that_does_not_get_its_table_steps_back_and_tries_again(
    request: pytest.FixtureRequest, database_at: str, table: str
) -> None:
    older: str = request.getfixturevalue(database_at)
    waiting: set[int] = set()
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    with psycopg.connect(older) as holder, psycopg.connect(older, autocommit=True) as watcher:
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        with ThreadPoolExecutor(1) as threads:
            migration = threads.submit(migrate, older)
            try:

                def tried_twice() -> bool:
                    waiting.update(pid for (pid,) in watcher.execute(query))
                    return len(waiting) >= 2

                eventually(tried_twice, within_seconds=30)
            finally:
                holder.rollback()
            migration.result(60)

    assert revision_of(older) == revisions()[1]


def test_a_slow_autovacuum_gives_way_to_a_migration(vacuumed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskplatform.store.postgres.migrate.PATIENCE_SECONDS", 3.0)
    with psycopg.connect(vacuumed, autocommit=True) as link:
        link.execute("ALTER TABLE jobs SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)")
        link.execute(
            "INSERT INTO jobs (id, tenant, task, pool, priority, state, max_attempts, body)"
            " SELECT gen_random_uuid(), 't', 't', 'p', 'normal', 'queued', 1, '[]' FROM generate_series(1, 20000)"
        )
        link.execute("DELETE FROM jobs")
        vacuums = "SELECT FROM pg_stat_progress_vacuum WHERE relid = 'jobs'::regclass"
        eventually(lambda: link.execute(vacuums).fetchone() is not None, within_seconds=30)

        migrate(vacuumed)

    assert revision_of(vacuumed) == revisions()[1]
