"""Fills the tables of a platform by the million, inside Postgres, with rows as the platform would have left them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import psycopg

from taskplatform.ids import lowest_id_at

TENANT = "default"
# A UUIDv7 of region and shard 0 (taskplatform/ids.py) for a millisecond; `n` tells two of the same millisecond apart.
_ID = "(lpad(to_hex({milliseconds}), 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid"

_WAITING = """
INSERT INTO jobs (id, tenant, task, pool, priority, state, blocked_on, due_at, max_attempts, created_at, body)
SELECT {id}, '{tenant}', 'benchmarks.noop', 'default', 'normal', {state}, {gate}, {due}, 5, now(),
    '[[' || n || '],{{}},{{}}]'
FROM generate_series({first}::bigint, {last}::bigint) AS n
"""

# Filled before it has an index, and attached when it is full: three times as fast as row by row into the partition.
_FINISHED = """
SET synchronous_commit = off;
SET maintenance_work_mem = '256MB';
SET max_parallel_maintenance_workers = 0;
DROP TABLE IF EXISTS finished_jobs_{day}, attempts_{day};
CREATE TABLE finished_jobs_{day} (LIKE finished_jobs INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
CREATE TABLE attempts_{day} (LIKE attempts INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
INSERT INTO finished_jobs_{day} (id, tenant, task, pool, priority, state, series, attempt, failures, crashes,
    max_attempts, created_at, started_at, ended_at, worker, tags, body, result)
SELECT {id}, '{tenant}', 'benchmarks.noop', 'default', 'normal', 'succeeded', 0, 1, 0, 0, 5,
    '{then}', '{then}', '{then}', 'default@history', '{{}}', '[[' || n || '],{{}},{{}}]', n::text
FROM generate_series(1, {count}) AS n;
INSERT INTO attempts_{day} (job_id, number, ended, worker, started_at, ended_at)
SELECT id, 1, 'succeeded', 'default@history', '{then}', '{then}' FROM finished_jobs_{day};
ALTER TABLE finished_jobs_{day} ADD PRIMARY KEY (id);
CREATE INDEX ON finished_jobs_{day} (tenant, id);
ALTER TABLE attempts_{day} ADD PRIMARY KEY (job_id, number);
ALTER TABLE finished_jobs ATTACH PARTITION finished_jobs_{day} FOR VALUES FROM ('{lower}') TO ('{upper}');
ALTER TABLE attempts ATTACH PARTITION attempts_{day} FOR VALUES FROM ('{lower}') TO ('{upper}');
"""


def add_waiting(connection: psycopg.Connection, numbers: range, *, spread_seconds: float = 0.0) -> None:
    """Add jobs that wait for room in their queue, in the order of their numbers, the first `spread_seconds` old."""
    begin = round((time.time() - spread_seconds) * 1000)
    moment = f"({begin} + ((n - {numbers.start}) * {1000 * spread_seconds / len(numbers)})::bigint)"
    _add_live(connection, numbers, moment, state="'blocked'", gate="'queue_full'", due="NULL")


def add_scheduled(connection: psycopg.Connection, numbers: range) -> None:
    """Add jobs whose time comes tomorrow."""
    moment = str(time.time_ns() // 1_000_000)
    _add_live(connection, numbers, moment, state="'scheduled'", gate="NULL", due="now() + interval '1 day'")


def _add_live(connection: psycopg.Connection, numbers: range, moment: str, **values: str) -> None:
    made = _ID.format(milliseconds=moment)
    bounds = {"first": numbers.start, "last": numbers.stop - 1}
    connection.execute(_WAITING.format(id=made, tenant=TENANT, **bounds, **values).encode())


def add_finished(url: str, count: int, days: int) -> None:
    """Add succeeded jobs with an attempt each, spread evenly over so many days, today the last."""
    today = datetime.now(UTC).date()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda back: _add_day(url, today - timedelta(days=back), count // days), range(days)))


def _add_day(url: str, day: date, count: int) -> None:
    then, after = (datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=more) for more in (0, 1))
    begin, end = (round(moment.timestamp() * 1000) for moment in (then, after))
    values = {
        "day": f"{day:%Y%m%d}",
        "id": _ID.format(milliseconds=f"({begin} + n)"),
        "tenant": TENANT,
        "then": then,
        "count": count,
        "lower": lowest_id_at(begin),
        "upper": lowest_id_at(end),
    }
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FINISHED.format(**values).encode())


def settle(url: str) -> None:
    """Do what autovacuum does in its own time after such a load."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
