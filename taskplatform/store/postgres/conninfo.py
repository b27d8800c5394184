"""How connections to Postgres are made: what a DSN leaves unsaid."""

from __future__ import annotations

from importlib.metadata import version

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from taskplatform.errors import SettingsError
from taskplatform.metrics import Part

_UNSAID = {
    # After a failover the former primary may answer first, as a standby.
    "target_session_attrs": "read-write",
    "connect_timeout": "3",
    # A host that vanished without a word is given up after about ten seconds.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "taskplatform",
    "client_encoding": "utf-8",
}

_SESSION = {
    # Our statements find rows by key, whatever the statistics of a young table say, and their plans never change.
    # Why they compare ids with arrays of one: docs/decisions/0014-plans-that-do-not-believe-a-table-is-empty.md.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "timezone": "UTC",
    "datestyle": "ISO",
}


def complete(dsn: str) -> str:
    """Give the libpq connection string with time-outs, and with the session settings that the statements count on.

    Several hosts are allowed: the one that takes writes is used. What the DSN itself says stays.
    Raises SettingsError for one that libpq cannot read.
    """
    said = _parsed(dsn)
    settings = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
    options = f"{settings} {said.pop('options', '')}".strip()
    return make_conninfo(**(_UNSAID | said | {"options": options}))


def complete_replica(dsn: str) -> str:
    """Give the libpq connection string of a replica: as `complete` does, but for a server that takes no writes.

    Raises SettingsError for one that libpq cannot read.
    """
    unsaid = {"target_session_attrs": "standby", "connect_timeout": "2"}
    return complete(make_conninfo(**(unsaid | _parsed(dsn, "database_replica_urls"))))


def complete_plain(dsn: str) -> str:
    """Give the libpq connection string with time-outs alone, for work that is not ours to plan, such as migrations."""
    return make_conninfo(**(_UNSAID | _parsed(dsn)))


def named(dsn: str, part: Part) -> str:
    """Give the libpq connection string with the name under which sessions tell what runs there, and its version.

    Raises SettingsError for one that libpq cannot read.
    """
    return make_conninfo(**({"application_name": f"taskplatform {part} {version('taskplatform')}"} | _parsed(dsn)))


def _parsed(dsn: str, setting: str = "database_url") -> dict[str, str]:
    try:
        return {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except ProgrammingError as error:
        raise SettingsError(f"{setting} is not a libpq connection string: {str(error).strip()}") from None
