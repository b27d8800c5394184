"""What is known after a fault run, gathered from every side: the load's history, the jobs' effects, the platform."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from tests.faults.history import Effect, Exchange, read_lines

ENDED = frozenset({"succeeded", "dead", "cancelled", "expired"})

_WATCH = """
CREATE SCHEMA observer;
CREATE TABLE observer.endings (job_id uuid NOT NULL, change text NOT NULL);
CREATE FUNCTION observer.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO observer.endings VALUES (NEW.id, TG_OP);
    RETURN NULL;
END $$;
CREATE TRIGGER observed AFTER INSERT OR UPDATE ON finished_jobs FOR EACH ROW EXECUTE FUNCTION observer.note();
"""
_JOBS = """
SELECT id::text, state, attempt, crashes, body, NULL AS result, NULL AS reason FROM jobs
UNION ALL SELECT id::text, state, attempt, crashes, body, result, reason FROM finished_jobs
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A job as the platform's tables have it; `number` is what it was submitted with."""

    id: str
    number: int
    state: str
    attempt: int
    crashes: int = 0
    result: dict[str, Any] | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that the checker judges."""

    exchanges: Sequence[Exchange]
    effects: Sequence[Effect]
    records: Sequence[Record]
    attempts: Sequence[tuple[str, int, str]]
    endings: dict[str, int]
    letters: dict[str, int]
    shown: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """What the API shows of the accepted jobs: state and result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What a drained platform has none of."""

    live: int
    outbox: int
    messages: int

    @property
    def empty(self) -> bool:
        """Whether everything has ended and nothing waits to be published or taken."""
        return not (self.live or self.outbox or self.messages)


def watch(database_url: str) -> None:
    """Have the database itself note every time a job's end is written, whoever writes it."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_WATCH)


def backlog(database_url: str, messages: Callable[[], int]) -> Backlog:
    """Count what is left to do."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        live, outbox = connection.execute(
            "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM outbox)"
        ).fetchone() or (0, 0)
    return Backlog(live=live, outbox=outbox, messages=messages())


def live_states(database_url: str) -> dict[str, int]:
    """Count the jobs that have not ended by state."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        return dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY 1 ORDER BY 1").fetchall())


def count_ended(database_url: str) -> int:
    """Count the jobs that have ended."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        return sum(count for (count,) in connection.execute("SELECT count(*) FROM finished_jobs"))


def gather(
    history: Path, effects: Path, database_url: str, show: Callable[[Iterable[str]], dict[str, tuple[str, Any]]]
) -> Evidence:
    """Read everything, when nothing changes any more; `show` reads jobs through the API."""
    exchanges = list(read_lines(history, Exchange))
    seen = [effect for path in sorted(effects.glob("*.jsonl")) for effect in read_lines(path, Effect)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        return Evidence(
            exchanges=exchanges,
            effects=seen,
            records=[_record(row) for row in connection.execute(_JOBS)],
            attempts=connection.execute("SELECT job_id::text, number, ended FROM attempts").fetchall(),
            endings=dict(
                connection.execute("SELECT job_id::text, count(*) FROM observer.endings GROUP BY 1").fetchall()
            ),
            letters=dict(
                connection.execute(
                    "SELECT job_id::text, count(*) FROM dead_letters WHERE job_id IS NOT NULL GROUP BY 1"
                ).fetchall()
            ),
            shown=show(sorted({job for exchange in exchanges for job in exchange.ids if job})),
        )


def joined(one: Evidence, other: Evidence) -> Evidence:
    """Put together what was gathered of one run from two clusters."""
    return dataclasses.replace(
        one,
        records=[*one.records, *other.records],
        attempts=[*one.attempts, *other.attempts],
        endings=one.endings | other.endings,
        letters=one.letters | other.letters,
    )


def _record(row: tuple[Any, ...]) -> Record:
    job, state, attempt, crashes, body, result, reason = row
    number = -1
    with contextlib.suppress(msgspec.DecodeError, IndexError, TypeError):
        number = int(msgspec.json.decode(body)[0][0])
    return Record(
        id=job,
        number=number,
        state=state,
        attempt=attempt,
        crashes=crashes,
        result=None if result is None else msgspec.json.decode(result),
        reason=reason,
    )
