from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.schema import SchemaItem

from taskplatform.errors import SettingsError, StoreUnavailable
from taskplatform.servers import Postgres, free_ports
from taskplatform.store.postgres.migrate import migrate
from taskplatform.store.postgres.partitions import PARTITIONED
from taskplatform.store.schema import metadata
from tests.fixtures.waiting import eventually


def _is_ours(item: SchemaItem, name: str | None, kind: str, reflected: bool, compare_to: SchemaItem | None) -> bool:
    partition = any((name or "").startswith(f"{parent}_") for parent in PARTITIONED)
    return not (kind == "table" and (partition or name == "alembic_version"))


def test_the_tables_that_queries_know_are_those_that_the_migrations_make(database: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database), poolclass=NullPool)

    with engine.connect() as connection:
        options = {"include_object": _is_ours, "compare_type": True, "compare_server_default": True}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    assert differences == []


def test_migrating_twice_changes_nothing(database: str, postgres: Postgres) -> None:
    tables = (
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )
    name = database.rpartition("/")[2]
    before = postgres.execute(tables, dbname=name)

    migrate(database)

    assert postgres.execute(tables, dbname=name) == before


def test_several_processes_may_migrate_a_new_database_at_once(postgres: Postgres) -> None:
    dsn = postgres.create_database("migrated_by_many")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate, [dsn] * 4))

    assert postgres.execute("SELECT count(*) FROM alembic_version", dbname="migrated_by_many") == "1"


def test_a_new_database_has_partitions_for_today_and_the_days_ahead(database: str) -> None:
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT inhparent::regclass::text, count(*) FROM pg_inherits GROUP BY 1").fetchall()

    assert {parent: count for parent, count in rows if parent in PARTITIONED} == {"finished_jobs": 5, "attempts": 5}


def test_ended_jobs_are_where_they_were_when_the_default_partition_is_split(postgres: Postgres) -> None:
    dsn = postgres.create_database("undated")
    migrate(dsn, revision="0009")
    ids = [UUID("00ffffff-0000-4000-8000-000000000000"), UUID("80000000-0000-4000-8000-000000000000")]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO finished_jobs (id, tenant, task, pool, priority, state, series, attempt, failures, crashes,"
            " max_attempts, created_at, ended_at, tags, body, task_version) SELECT id, 'acme', 'shop.ship', 'default',"
            " 'normal', 'succeeded', 0, 1, 0, 0, 5, now(), now(), '{}', '[]', 2 FROM unnest(%s::uuid[]) AS i (id)",
            (ids,),
        )
        connection.execute(
            "INSERT INTO attempts (job_id, number, ended, worker, started_at, ended_at)"
            " SELECT id, 1, 'succeeded', 'w', now(), now() FROM finished_jobs"
        )
        before = [connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in PARTITIONED]

        migrate(dsn)

        after = [connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in PARTITIONED]
        stray = connection.execute("SELECT id FROM finished_jobs_stray UNION ALL SELECT job_id FROM attempts_stray")
        indexes = connection.execute("SELECT count(*) FILTER (WHERE NOT indisvalid) FROM pg_index").fetchone()
        assert after == before
        assert stray.fetchall() == [(ids[0],)] * 2
        assert indexes == (0,)


@pytest.mark.parametrize("valid", [True, False])
def test_an_index_of_many_partitions_is_built_on_after_it_was_cut_short(postgres: Postgres, valid: bool) -> None:
    dsn = postgres.create_database(f"cut_short_{valid}".lower())
    migrate(dsn, revision="0010")
    with psycopg.connect(dsn, autocommit=True) as connection:
        parts = "(tenant, id) WHERE state <> 'succeeded'"
        connection.execute(f"CREATE INDEX finished_jobs_unsuccessful ON ONLY finished_jobs {parts}".encode())
        connection.execute(f"CREATE INDEX finished_jobs_undated_unsuccessful ON finished_jobs_undated {parts}".encode())
        oid = "SELECT 'finished_jobs_undated_unsuccessful'::regclass::oid"
        built = connection.execute(oid).fetchone()
        connection.execute("UPDATE pg_index SET indisvalid = %s WHERE indexrelid = %s", (valid, *(built or ())))

        migrate(dsn)

        lists = "SELECT id FROM finished_jobs WHERE tenant = 'acme' AND state IN ('dead', 'expired') ORDER BY id DESC"
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {lists}".encode()))
        invalid = connection.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid").fetchall()
        assert (connection.execute(oid).fetchone() == built) is valid
        assert invalid == []
        assert plan.count("_unsuccessful on finished_jobs_") == plan.count(" on finished_jobs_") == 6


def test_a_day_that_is_dropped_meanwhile_needs_no_index(postgres: Postgres) -> None:
    dsn = postgres.create_database("dropped_meanwhile")
    migrate(dsn, revision="0010")
    builds = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as threads, psycopg.connect(dsn, autocommit=True) as other:
        with psycopg.connect(dsn) as older:
            older.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            older.execute("SELECT")
            migrating = threads.submit(migrate, dsn)
            eventually(lambda: other.execute(builds).fetchone() is not None, within_seconds=30)
            last = other.execute(
                "SELECT max(relname) FROM pg_class WHERE relname ~ '^finished_jobs_[0-9]+$'"
            ).fetchone()
            other.execute(f"DROP TABLE {(last or ('',))[0]}".encode())

        migrating.result()

        assert other.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)


def test_a_table_that_never_comes_is_named_at_once_however_late_it_is(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = postgres.create_database("without_a_table")
    migrate(dsn, revision="0010")
    monkeypatch.setattr("taskplatform.store.postgres.migrate.PATIENCE_SECONDS", 0.0)
    postgres.execute("DROP TABLE finished_jobs", dbname="without_a_table")

    with pytest.raises(StoreUnavailable, match='what is not there: relation "finished_jobs" does not exist'):
        migrate(dsn)


def test_a_table_that_is_never_free_is_waited_for_and_the_reason_said(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = postgres.create_database("never_free")
    migrate(dsn, revision="0010")
    monkeypatch.setattr("taskplatform.store.postgres.migrate.PATIENCE_SECONDS", 0.0)

    with psycopg.connect(dsn) as holder:
        holder.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="does not let it go: canceling statement due to lock timeout"):
            migrate(dsn)


def test_migrating_without_a_server_says_that_it_cannot_be_reached() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        migrate(f"postgresql://postgres@127.0.0.1:{free_ports(1)[0]}/nothing")


def test_a_malformed_connection_string_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="not a libpq connection string"):
        migrate("host = 127.0.0.1 nonsense")
