"""Brings a database's tables up to this version, however many processes ask for it at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
from alembic import command
from alembic.config import Config
from psycopg.errors import DeadlockDetected, LockNotAvailable, UndefinedObject, UndefinedTable
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from taskplatform.errors import StoreUnavailable
from taskplatform.store.postgres.conninfo import complete_plain
from taskplatform.store.postgres.failures import Purpose, translated
from taskplatform.store.postgres.partitions import add_calls

_LOCK = 0x7461736B706C6174
_PAUSE_SECONDS = 0.1
_HELD = (LockNotAvailable, DeadlockDetected)
# Retention may have dropped the day that was next.
_GONE = (UndefinedTable, UndefinedObject)
# Longer than a deadlock takes to be noticed: only then does autovacuum give way.
LOCK_MILLISECONDS = 1500
"""How long a revision may wait for a table, and with it everybody who comes after it."""
PATIENCE_SECONDS = 300.0
"""How long a revision that did not get its table is tried again."""


def migrate(dsn: str, *, revision: str = "head") -> None:
    """Create or upgrade the tables and make the partitions of the first days. May be called again, and by many at once.

    Everybody else may go on meanwhile: a revision that does not get a table at once steps back, and is tried again.
    Only what builds an index beside the writers waits on, for every transaction that is older, and in nobody's way.
    Raises StoreUnavailable when the database cannot be reached, a table is never free or a table is missing that no
    revision makes, and SettingsError for a malformed `dsn`.
    """
    conninfo = complete_plain(dsn)
    with translated(Purpose.CONNECT), psycopg.connect(conninfo, autocommit=True) as guard, _locked(guard):
        deadline = time.monotonic() + PATIENCE_SECONDS
        missed: set[str | None] = set()
        while (obstacle := _upgrade(conninfo, revision)) is not None:
            reason = obstacle.diag.message_primary
            if isinstance(obstacle, _GONE):
                if reason in missed:
                    # A day that retention dropped is not looked for again.
                    raise StoreUnavailable(f"the migration needs what is not there: {reason}")
                missed.add(reason)
            elif time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"somebody holds a table that the migration needs, and does not let it go: {reason}"
                )
            time.sleep(_PAUSE_SECONDS)
        _add_partitions(guard)


def _upgrade(conninfo: str, revision: str) -> psycopg.Error | None:
    """Upgrade as far as it goes; gives what was in the way and may pass, None when nothing was."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_MILLISECONDS}ms'")
            connection.commit()
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", "taskplatform.store:migrations")
            command.upgrade(config, revision)
            connection.commit()
    except (OperationalError, ProgrammingError) as error:
        if isinstance(error.orig, (*_HELD, *_GONE)):
            return error.orig
        raise
    return None


@contextmanager
def _locked(guard: psycopg.Connection) -> Iterator[None]:
    # Asked again and again: who waits inside a statement holds a snapshot, and an index that another process builds
    # concurrently would wait for that snapshot to end.
    while not _one(guard, "SELECT pg_try_advisory_lock(%s)"):
        time.sleep(_PAUSE_SECONDS)
    try:
        yield
    finally:
        _one(guard, "SELECT pg_advisory_unlock(%s)")


def _one(guard: psycopg.Connection, query: str) -> bool:
    row = guard.execute(query, (_LOCK,)).fetchone()
    return bool(row and row[0])


def _add_partitions(guard: psycopg.Connection) -> None:
    cursor = psycopg.RawCursor(guard)
    for made in add_calls(datetime.now(UTC).date()):
        # Ids without a partition of their own go to the default partition, and upkeep tries again every hour.
        cursor.execute(made.sql, made.parameters)
