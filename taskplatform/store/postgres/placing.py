"""Administration of the shard map: looks at it in every cluster, writes the first, and writes later ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil
from time import monotonic
from typing import Any

import psycopg
from sqlalchemy import Connection, Table, cast, create_engine, func, insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from taskplatform.errors import Conflict, StoreUnavailable
from taskplatform.ids import SHARDS
from taskplatform.shards import KnownMap, ShardMap, first_row, spread
from taskplatform.store.postgres.conninfo import complete_plain
from taskplatform.store.postgres.failures import Purpose, translated
from taskplatform.store.schema import (
    api_keys,
    attempts,
    dead_letters,
    finished_jobs,
    idempotency_keys,
    jobs,
    outbox,
    shard_maps,
)

LOCK_SECONDS = 5
"""How long a new map may wait for the transactions that write jobs, and how long it holds up the ones after it."""

_FENCE = """
CREATE OR REPLACE TRIGGER jobs_at_home AFTER INSERT ON jobs REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION refuse_strangers()
"""
_HOLDS_JOBS: tuple[tuple[Table, Any], ...] = (
    (jobs, jobs.c.id),
    (idempotency_keys, idempotency_keys.c.job_id),
    (dead_letters, dead_letters.c.job_id),
    (finished_jobs, finished_jobs.c.id),
    (attempts, attempts.c.job_id),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """What a look at one cluster found: the map that it knows and the number it has there, or what the `trouble` is."""

    number: int
    address: str
    known: KnownMap | None = None
    trouble: str = ""


def look(dsns: Sequence[str]) -> list[ClusterState]:
    """Look at every cluster. Raises SettingsError for a malformed connection string."""
    return [_look(number, dsn) for number, dsn in enumerate(dsns)]


def ensure_map(dsns: Sequence[str]) -> ShardMap:
    """Give the map of several clusters; the first one is written, and one that not every cluster knows is made known.

    Clusters that lack API keys of the first one get them before they get any shard.
    The first map spreads the shards evenly, unless the first cluster holds jobs already: then all stay there.
    Raises StoreUnavailable, and Conflict when a cluster is not the one that the settings say, or holds jobs of shards
    that it would lose by the newest map.
    """
    newest = _newest(dsns)
    _copy_keys(dsns)
    if newest is None:
        with _session(dsns[0]) as session:
            used = any(_is_there(session, table.select()) for table, _ in _HOLDS_JOBS)
        before = ShardMap(0, (0,) * SHARDS)
        newest = ShardMap(1, before.homes if used else spread(len(dsns)))
        _publish(dsns, newest, first=before)
    else:
        newest = _without_what_came_meanwhile(dsns, newest)
        _publish(dsns, newest)
    return newest


def move(dsns: Sequence[str], shards: Sequence[int], to: int) -> ShardMap:
    """Give shards another home by a new map; gives the map, the present one where that says so already.

    Whoever is killed in the midst of it may ask for the same again. Raises StoreUnavailable, and Conflict when one of
    the shards holds anything: jobs are not copied.
    """
    newest = ensure_map(dsns)
    homes = tuple(to if shard in set(shards) else home for shard, home in enumerate(newest.homes))
    if homes == newest.homes:
        return newest
    made = ShardMap(newest.version + 1, homes)
    _publish(dsns, made)
    return made


def _publish(dsns: Sequence[str], made: ShardMap, *, first: ShardMap | None = None) -> None:
    """Write a map into every cluster that does not know it; what a cluster would lose, its own map says, or `first`.

    Those that lose shards are all locked and found empty before any of them commits, and all of them before any that
    gains: nobody can write by an old map what has a new home from then on. A crash in between leaves shards at home
    nowhere, until the map is made known everywhere: `ensure_map` does that, and so every `move`.
    """
    losing: list[int] = []
    gaining: list[int] = []
    for number, dsn in enumerate(dsns):
        with _session(dsn) as session:
            known = _known(session)
            leaving = _leaving(number, known.map if known else first, made)
            # Once before anybody anywhere has to wait: this may take long where there is much.
            _require_empty(session, number, leaving)
        if leaving:
            losing.append(number)
        elif known is None or known.map.version < made.version:
            # Nobody is held up where it is known.
            gaining.append(number)
    with ExitStack() as sessions:
        holdup = _Holdup()
        for number in losing:
            _write_news(sessions.enter_context(_session(dsns[number])), number, made, first, holdup)
    for number in gaining:
        with _session(dsns[number]) as session:
            _write_news(session, number, made, first, _Holdup())


class _Holdup:
    """Bounds for how long a new map holds up whoever inserts jobs, in all clusters that are locked at a time."""

    def __init__(self) -> None:
        self._until: float | None = None

    def begin(self) -> None:
        """Count from here, unless it began in another cluster."""
        if self._until is None:
            self._until = monotonic() + LOCK_SECONDS

    def bound(self, session: Connection) -> None:
        """Give the next statement what is left. Raises StoreUnavailable when nothing is."""
        if self._until is None:
            return
        left_milliseconds = ceil((self._until - monotonic()) * 1000)
        if left_milliseconds <= 0:
            raise StoreUnavailable(f"the clusters were not all found empty within {LOCK_SECONDS} s")
        session.exec_driver_sql(f"SET LOCAL statement_timeout = {left_milliseconds}")


def _without_what_came_meanwhile(dsns: Sequence[str], newest: ShardMap) -> ShardMap:
    """Give the map, or one after it by which shards stay where jobs came to them while nobody else took any.

    So it is when a crash kept the map from a cluster that loses them, and from the one that gains them too.
    """
    known = [state.known.map.version if state.known else 0 for state in look(dsns)]
    homes = list(newest.homes)
    for number, dsn in enumerate(dsns):
        with _session(dsn) as session:
            found = _known(session)
            leaving = _leaving(number, found.map if found else None, newest)
            for shard in leaving:
                if known[newest.homes[shard]] < newest.version and _holding(session, [shard]):
                    homes[shard] = number
    return newest if tuple(homes) == newest.homes else ShardMap(newest.version + 1, tuple(homes))


def _leaving(number: int, before: ShardMap | None, made: ShardMap) -> list[int]:
    if before is None or before.version >= made.version:
        return []
    return [shard for shard in before.shards_of(number) if made.homes[shard] != number]


def _write_news(session: Connection, number: int, made: ShardMap, first: ShardMap | None, holdup: _Holdup) -> None:
    """Hold up whoever inserts jobs until the transaction ends, and write a map that is still news here."""
    holdup.bound(session)
    # Whoever does it has committed, or waits here and is held to the new map. Reads go on.
    session.exec_driver_sql("LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE")
    holdup.begin()
    known = _known(session)
    if known is None or known.map.version < made.version:
        _require_empty(session, number, _leaving(number, known.map if known else first, made), holdup)
        holdup.bound(session)
        _write(session, number, made)


def _write(session: Connection, number: int, made: ShardMap) -> None:
    session.execute(insert(shard_maps).values(version=made.version, cluster=number, homes=list(made.homes)))
    _prepare(session, number)


def _prepare(session: Connection, number: int) -> None:
    session.exec_driver_sql(_FENCE)
    for table in (dead_letters, outbox):
        # Not the rows that are left: a number that was given once is not given again when its row has gone.
        given = func.pg_sequence_last_value(cast(func.pg_get_serial_sequence(table.name, "id"), postgresql.REGCLASS))
        if (session.execute(select(given)).scalar_one() or 0) < first_row(number):
            session.exec_driver_sql(f"ALTER TABLE {table.name} ALTER COLUMN id RESTART WITH {first_row(number)}")


def _require_empty(session: Connection, number: int, shards: Sequence[int], holdup: _Holdup | None = None) -> None:
    held = _holding(session, shards, holdup)
    if held is not None:
        raise Conflict(f"cluster {number} holds {held} of these shards: only empty ones can be given another home")


def _holding(session: Connection, shards: Sequence[int], holdup: _Holdup | None = None) -> str | None:
    """Name a table that holds rows of these shards, None where none does."""
    for table, job_id in _HOLDS_JOBS if shards else ():
        if holdup is not None:
            holdup.bound(session)
        if _is_there(session, select(job_id).where(func.shard_of(job_id).in_(shards))):
            return table.name
    return None


def _copy_keys(dsns: Sequence[str]) -> None:
    with _session(dsns[0]) as session:
        known = [dict(row) for row in session.execute(select(api_keys)).mappings()]
    for dsn in dsns[1:] if known else ():
        with _session(dsn) as session:
            session.execute(postgresql.insert(api_keys).on_conflict_do_nothing(), known)


def _is_there(session: Connection, query: Any) -> bool:
    return session.execute(query.limit(1)).first() is not None


def _newest(dsns: Sequence[str]) -> ShardMap | None:
    found: list[ShardMap] = []
    for number, dsn in enumerate(dsns):
        with _session(dsn) as session:
            known = _known(session)
        if known is not None:
            if known.cluster != number:
                raise Conflict(f"what the settings call cluster {number} is cluster {known.cluster} by its own map")
            found.append(known.map)
    return max(found, key=lambda each: each.version, default=None)


def _known(session: Connection) -> KnownMap | None:
    row = session.execute(select(shard_maps).order_by(shard_maps.c.version.desc()).limit(1)).first()
    return None if row is None else KnownMap(ShardMap(row.version, tuple(row.homes)), row.cluster)


def _look(number: int, dsn: str) -> ClusterState:
    parts = psycopg.conninfo.conninfo_to_dict(complete_plain(dsn))
    address = f"{parts.get('host', '')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
    try:
        with _session(dsn) as session:
            return ClusterState(number=number, address=address, known=_known(session))
    except StoreUnavailable as error:
        return ClusterState(number=number, address=address, trouble=str(error))


@contextmanager
def _session(dsn: str) -> Iterator[Connection]:
    conninfo = complete_plain(dsn)

    def connect() -> psycopg.Connection:
        with translated(Purpose.CONNECT):
            return psycopg.connect(conninfo, options=f"-c lock_timeout={LOCK_SECONDS}s -c statement_timeout=60s")

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    try:
        with engine.begin() as session:
            yield session
    except DBAPIError as error:
        raise StoreUnavailable(f"Postgres did not do it: {' '.join(str(error.orig).split())}") from error
