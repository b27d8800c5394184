"""Statements as values: SQL text from the .sql files, parameters in Postgres' text format, rows back into values.

Whoever talks to Postgres sends the same `Call`s, so there is one place that knows the columns. Statements use `$1` and
take every parameter as text (or None), arrays as array literals (PostgreSQL manual, 8.15.6 "Array Input and Output
Syntax").
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import cast
from uuid import UUID

import msgspec

from taskplatform.job import NewJob
from taskplatform.store.contract import BuriedMessage
from taskplatform.store.working import MOST_PASSES, Claimed, ClaimRequest, Ended, Ending, GivenBack, Lease, PutOff
from taskplatform.task import TaskSpec

Running = tuple[UUID, int]
"""An attempt: job id and number."""


@dataclass(frozen=True, slots=True)
class Call:
    """One statement and its parameters; `name` also names the prepared statement.

    Where the answer counts jobs by their place, `about` are those jobs.
    """

    name: str
    sql: str
    parameters: tuple[str | None, ...]
    about: Sequence[UUID] = ()


@cache
def statements() -> dict[str, str]:
    """Load every named statement of the .sql files."""
    found: dict[str, str] = {}
    for file in sorted(resources.files("taskplatform.store.sql").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            for block in re.split(r"^-- name: ", file.read_text(), flags=re.MULTILINE)[1:]:
                name, _, sql = block.partition("\n")
                found[name.strip()] = sql.strip()
    return found


def call(name: str, *parameters: str | None, about: Sequence[UUID] = ()) -> Call:
    """Make a call of a named statement."""
    return Call(name, statements()[name], parameters, about)


def array(values: Iterable[object]) -> str:
    """Write an array literal; None becomes NULL."""
    column = list(values)
    if len(column) > 1 and column.count(column[0]) == len(column):
        # A batch is often of one kind.
        return "{" + ",".join([_written(column[0])] * len(column)) + "}"
    return "{" + ",".join(map(_written, column)) + "}"


def plain_array(values: Iterable[object]) -> str:
    """Write an array literal of values whose texts need no quotes: ids, numbers, our own names; none may be None."""
    return "{" + ",".join(map(str, values)) + "}"


def accept_call(jobs: Sequence[NewJob], key_lifetime_seconds: float) -> Call:
    """Give the call that stores a batch of jobs.

    Its row is (how many are new, created_at, outbox_id, which are new unless all are, …).
    """
    # In the order of their keys, so that two batches with the same keys wait for each other, and do not lock crosswise.
    ordered = sorted(jobs, key=lambda job: (job.key or "", job.tenant))
    return call(
        "accept",
        plain_array(job.id for job in ordered),
        array(job.tenant for job in ordered),
        array(job.task for job in ordered),
        array(job.pool for job in ordered),
        array(job.priority for job in ordered),
        array(job.state for job in ordered),
        array(job.blocked_on for job in ordered),
        array(job.due_at for job in ordered),
        array(job.expires_at for job in ordered),
        array(job.max_attempts for job in ordered),
        array(job.soft_limit_seconds for job in ordered),
        array(job.hard_limit_seconds for job in ordered),
        array(array(job.tags) for job in ordered),
        array(job.trace for job in ordered),
        array(job.body for job in ordered),
        array(job.key for job in ordered),
        array(job.fingerprint for job in ordered),
        plain_array(job.task_version for job in ordered),
        str(key_lifetime_seconds),
    )


def bury_call(messages: Sequence[BuriedMessage]) -> Call:
    """Give the call that keeps messages as dead letters and ends the queued jobs among them."""
    return call(
        "bury_messages",
        array(message.reason for message in messages),
        array(message.queue for message in messages),
        array(message.tenant for message in messages),
        array(message.job_id for message in messages),
        array(message.task for message in messages),
        array(message.detail for message in messages),
        array(message.headers for message in messages),
        array(f"\\x{message.raw.hex()}" for message in messages),
        array(message.series for message in messages),
    )


def error_text(kind: str, message: str) -> str:
    """Write the error of a job that ended without an exception of its own, as JSON text."""
    return msgspec.json.encode({"type": kind, "message": message}).decode()


def turn_calls(endings: Sequence[Ending], claim: ClaimRequest | None) -> list[Call]:
    """Give the calls of one turn of a worker, to be sent as one implicit transaction, endings first."""
    calls: list[Call] = []
    ended = [ending for ending in endings if isinstance(ending, Ended)]
    put_off = [ending for ending in endings if isinstance(ending, PutOff)]
    given_back = [ending for ending in endings if isinstance(ending, GivenBack)]
    if ended:
        calls.append(_finish(ended))
    if put_off:
        calls.append(_retry(put_off))
    if given_back:
        calls.append(_release(given_back))
    if claim is not None:
        if claim.adopt:
            calls.append(_adopt(claim))
        ids = [job_id for job_id, _ in claim.wanted]
        series = plain_array([series for _, series in claim.wanted])
        asked = (plain_array(ids), series, claim.worker, claim.token, str(MOST_PASSES - 1))
        calls.append(call("claim_queued_or_same_claim", *asked, about=ids))
    return calls


def read_turn(calls: Sequence[Call], rows: Sequence[Sequence[Sequence[str | None]]]) -> tuple[set[UUID], list[Claimed]]:
    """Read the rows of each call of a turn (text format): which endings were recorded, which attempts may run."""
    recorded: set[UUID] = set()
    claimed: list[Claimed] = []
    for made, answer in zip(calls, rows, strict=True):
        if made.name == "claim_queued_or_same_claim":
            claimed = _claimed(made.about, answer[0])
        elif made.name != "adopt_messages":
            recorded.update(_counted(made.about, answer[0][0]))
    return recorded, claimed


def renew_call(lease: Lease) -> Call:
    """Give the call that renews a lease."""
    return call(
        "renew_lease",
        lease.worker,
        lease.pool,
        lease.host,
        str(lease.pid),
        str(lease.processes),
        str(lease.lease_seconds),
        str(lease.draining).lower(),
        str(lease.running),
        str(lease.waiting),
        msgspec.json.encode(lease.versions).decode(),
    )


def lost_call(running: Sequence[tuple[UUID, int]]) -> Call:
    """Give the call that finds running attempts which lost their job; its rows are (id, attempt)."""
    return call(
        "find_cancelled", plain_array(job_id for job_id, _ in running), plain_array(attempt for _, attempt in running)
    )


def save_call(saved: Mapping[Running, str]) -> Call:
    """Give the call that keeps checkpoints of running attempts; `read_saved` reads its rows."""
    ids, attempts = zip(*saved, strict=True)
    return call("save_checkpoints", plain_array(ids), plain_array(attempts), array(saved.values()))


def read_saved(running: Iterable[Running], rows: Sequence[Sequence[str | None]]) -> set[Running]:
    """Tell of which attempts a checkpoint was kept."""
    asked = list(running)
    return {asked[int(number) - 1] for number in (rows[0][0] or "").split(",") if number}


def load_call(running: Collection[Running]) -> Call:
    """Give the call that reads checkpoints of running attempts; `read_loaded` reads its rows."""
    ids, attempts = zip(*running, strict=True)
    return call("load_checkpoints", plain_array(ids), plain_array(attempts))


def read_loaded(running: Iterable[Running], rows: Sequence[Sequence[str | None]]) -> dict[Running, str | None]:
    """Give the checkpoints of the attempts that hold their jobs."""
    asked = list(running)
    return {asked[int(number or 0) - 1]: text for number, text in rows}


def announce_call(specs: Collection[TaskSpec]) -> Call:
    """Give the call that announces tasks."""
    return call(
        "announce_tasks",
        array(spec.name for spec in specs),
        plain_array(spec.version for spec in specs),
        array(msgspec.json.encode(spec).decode() for spec in specs),
    )


def _written(value: object) -> str:
    if value is None:
        return "NULL"
    text = str(value)
    if '"' in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _finish(ended: Sequence[Ended]) -> Call:
    ids = [e.id for e in ended]
    return call(
        "finish_running",
        plain_array(ids),
        array([e.attempt for e in ended]),
        array([e.state for e in ended]),
        array([e.reason for e in ended]),
        array([e.result for e in ended]),
        array([e.error for e in ended]),
        array([e.end for e in ended]),
        plain_array([e.started for e in ended]),
        plain_array([e.stopped for e in ended]),
        array([e.failed for e in ended]),
        array([e.crashed for e in ended]),
        about=ids,
    )


def _retry(put_off: Sequence[PutOff]) -> Call:
    ids = [e.id for e in put_off]
    return call(
        "retry_running",
        plain_array(ids),
        array(e.attempt for e in put_off),
        array(e.wait_seconds for e in put_off),
        array(e.error for e in put_off),
        array(e.end for e in put_off),
        array(e.started for e in put_off),
        array(e.stopped for e in put_off),
        array(e.failed for e in put_off),
        array(e.crashed for e in put_off),
        about=ids,
    )


def _release(given_back: Sequence[GivenBack]) -> Call:
    ids = [e.id for e in given_back]
    return call(
        "release_running",
        plain_array(ids),
        plain_array(e.attempt for e in given_back),
        plain_array(e.wait_seconds for e in given_back),
        array(e.error for e in given_back),
        about=ids,
    )


def _adopt(claim: ClaimRequest) -> Call:
    envelopes = [envelope for envelope, _ in claim.adopt]
    return call(
        "adopt_messages",
        plain_array(e.id for e in envelopes),
        array(e.tenant for e in envelopes),
        array(e.task for e in envelopes),
        array(e.pool for e in envelopes),
        array(e.priority for e in envelopes),
        array(most for _, most in claim.adopt),
        array(e.soft_limit_seconds for e in envelopes),
        array(e.hard_limit_seconds for e in envelopes),
        array(e.body for e in envelopes),
        array(e.due_at for e in envelopes),
        array(e.expires_at for e in envelopes),
        array(e.trace for e in envelopes),
        plain_array(e.task_version for e in envelopes),
    )


def _counted(about: Sequence[UUID], numbers: str | None) -> list[UUID]:
    return [] if numbers is None else [about[int(number) - 1] for number in numbers.split(",")]


def _claimed(about: Sequence[UUID], columns: Sequence[str | None]) -> list[Claimed]:
    if columns[0] is None:
        return []
    # Of what is claimed no fact is missing.
    numbers, *facts = cast("Sequence[str]", columns)
    rows = zip(*(column.split(",") for column in facts), strict=True)
    return [
        Claimed(
            id=job_id,
            attempt=int(attempt),
            failures=int(failures),
            crashes=int(crashes),
            max_attempts=int(max_attempts),
            suspect=suspect == "1",
            waited_seconds=max(float(waited), 0.0),
            task_version=int(version),
            passes=int(passes),
            served=served == "1",
        )
        for job_id, (attempt, failures, crashes, max_attempts, suspect, waited, version, passes, served) in zip(
            _counted(about, numbers), rows, strict=True
        )
    ]
