from concurrent.futures import ThreadPoolExecutor

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


def test_migrating_without_a_server_says_that_it_cannot_be_reached() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        migrate(f"postgresql://postgres@127.0.0.1:{free_ports(1)[0]}/nothing")


def test_a_malformed_connection_string_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="not a libpq connection string"):
        migrate("host = 127.0.0.1 nonsense")
