"""Looks at a database from outside: which server, which tables, which time, and what waits in it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from alembic.config import Config
from alembic.script import ScriptDirectory

from taskplatform.store.postgres.conninfo import complete_plain
from taskplatform.store.postgres.failures import Purpose, translated
from taskplatform.store.postgres.rows import Row
from taskplatform.store.statements import statements


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What was found; `revision` is that of the tables, None where there are none, `newest` that of this version.

    `ahead_seconds` is how far the server's clock is ahead of ours, known to `within_seconds`. `standbys` are those that
    answer for a commit, None where this role may not see them.
    """

    version: str
    revision: str | None
    newest: str | None
    ahead_seconds: float
    within_seconds: float
    settings: Mapping[str, str]
    standbys: int | None
    sessions: int

    @property
    def max_connections(self) -> int:
        """How many sessions there may be."""
        return int(self.settings["max_connections"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the tables show of those who should work on them; of keys that end soon, names and the seconds left."""

    unserved_pools: Sequence[str]
    left_running: int
    overdue_seconds: float
    outbox_seconds: float
    ending_keys: Sequence[tuple[str, float]]
    living_keys: int
    archiving: bool


def look(dsn: str) -> Checkup:
    """Look at the database that takes writes. Raises StoreUnavailable, and SettingsError for a malformed `dsn`."""
    config = Config()
    config.set_main_option("script_location", "taskplatform.store:migrations")
    with translated(Purpose.CONNECT), psycopg.connect(complete_plain(dsn), autocommit=True) as link:
        asked = time.time()
        now = _one(link, "SELECT extract(epoch FROM clock_timestamp())::float8")
        answered = time.time()
        migrated = _one(link, "SELECT to_regclass('alembic_version') IS NOT NULL")
        return Checkup(
            version=str(_one(link, "SHOW server_version")),
            revision=str(_one(link, "SELECT version_num FROM alembic_version")) if migrated else None,
            newest=ScriptDirectory.from_config(config).get_current_head(),
            ahead_seconds=float(str(now)) - (asked + answered) / 2,
            within_seconds=(answered - asked) / 2,
            settings=dict(_rows(link, "server_settings")),
            standbys=_rows(link, "synchronous_standbys")[0][0],
            sessions=_rows(link, "sessions_in_all")[0][0],
        )


def look_inside(dsn: str) -> Contents:
    """Look into tables of the newest revision. Raises StoreUnavailable."""
    with translated(Purpose.CONNECT), psycopg.connect(complete_plain(dsn), autocommit=True) as link:
        ((overdue, outbox),) = _rows(link, "most_overdue")
        return Contents(
            unserved_pools=[pool for (pool,) in _rows(link, "unserved_pools")],
            left_running=_rows(link, "left_running")[0][0],
            overdue_seconds=overdue,
            outbox_seconds=outbox,
            ending_keys=[(name, seconds) for name, seconds in _rows(link, "ending_keys")],
            living_keys=_rows(link, "living_keys")[0][0],
            archiving=_rows(link, "is_archiving")[0][0],
        )


def is_standby(dsn: str) -> bool:
    """Tell whether a server follows another one. Raises StoreUnavailable when it does not answer."""
    with translated(Purpose.CONNECT), psycopg.connect(complete_plain(dsn), autocommit=True) as link:
        return _one(link, "SELECT pg_is_in_recovery()") is True


def _rows(link: psycopg.Connection, name: str) -> list[Row]:
    return link.execute(statements()[name].encode()).fetchall()


def _one(link: psycopg.Connection, query: str) -> object:
    row = link.execute(query).fetchone()
    return row[0] if row else None
