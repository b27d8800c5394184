"""What is kept of a read: readable by the code that wrote it alone, and never longer than the row."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.cache.entry import (
    ABSENT_SECONDS,
    FORMAT,
    LIVE_SECONDS,
    SETTLED_SECONDS,
    Entry,
    decode,
    encode,
    keep_seconds,
    key_of,
)
from taskplatform.freshness import Position
from taskplatform.ids import Locator, new_job_id
from taskplatform.job import Job, Priority, State

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RETENTION = timedelta(days=30)
HERE = Position(3, 2**63)
TENANTS = st.text(":-a0", max_size=3)
IDS = st.sampled_from([uuid4(), uuid4()])


def a_job(*, state: State = State.SUCCEEDED, made: datetime = NOW, created: datetime = NOW) -> Job:
    milliseconds = round(made.timestamp() * 1000)
    return Job(
        id=new_job_id(Locator(region=0, shard=1), milliseconds=milliseconds),
        tenant="acme",
        task="shop.ship",
        pool="default",
        priority=Priority.NORMAL,
        state=state,
        body='[[],{"to":"Malmö"},{}]',
        attempt=1,
        failures=0,
        max_attempts=5,
        series=0,
        created_at=created,
        ended_at=created,
        result="1",
        tags=("red", "blue"),
    )


def entry_of(job: Job | None, since: Position | None = HERE) -> Entry:
    return Entry(tenant="acme", id=uuid4() if job is None else job.id, job=job, since=since, until=HERE)


@pytest.mark.parametrize("entry", [entry_of(a_job()), entry_of(a_job(state=State.RUNNING)), entry_of(None, None)])
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    assert decode(encode(entry), "acme", entry.id) == entry


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", b"{}", msgspec.msgpack.encode([1, 2, 3]), encode(entry_of(a_job()))[:-1]]
)
def test_what_is_no_entry_is_nothing(value: bytes) -> None:
    assert decode(value, "acme", uuid4()) is None


def test_an_entry_of_another_tenant_or_job_is_nothing() -> None:
    entry = entry_of(a_job())

    assert decode(encode(entry), "other", entry.id) is None
    assert decode(encode(entry), "acme", uuid4()) is None


@given(TENANTS, TENANTS, IDS, IDS)
def test_no_two_tenants_and_no_two_jobs_share_a_place(one: str, other: str, first: UUID, second: UUID) -> None:
    assert (key_of(one, first) == key_of(other, second)) is ((one, first) == (other, second))


def test_another_shape_of_a_job_has_another_format() -> None:
    shape = (
        *("id", "tenant", "task", "pool", "priority", "state", "body", "attempt", "failures", "max_attempts", "series"),
        *("created_at", "task_version", "blocked_on", "due_at", "expires_at", "started_at", "ended_at", "reason"),
        *("result", "error", "tags"),
    )

    assert (FORMAT, tuple(field.name for field in fields(Job))) == (2, shape)


@pytest.mark.parametrize(
    ("entry", "longest"),
    [
        (entry_of(a_job()), SETTLED_SECONDS),
        (entry_of(a_job(), None), SETTLED_SECONDS),
        (entry_of(a_job(state=State.RUNNING)), LIVE_SECONDS),
        (entry_of(a_job(state=State.DEAD)), LIVE_SECONDS),
        (entry_of(None), ABSENT_SECONDS),
    ],
)
def test_what_was_filled_at_once_expires_at_different_times(entry: Entry, longest: float) -> None:
    random = Random(7)

    times = {keep_seconds(entry, NOW, RETENTION, random) for _ in range(100)}

    assert len(times) > 90
    assert 0.7 * longest < min(times) < 0.8 * longest
    assert 0.95 * longest < max(times) <= longest


@pytest.mark.parametrize("job", [None, a_job(state=State.RUNNING), a_job(state=State.DEAD)])
def test_what_could_be_shown_to_nobody_is_not_kept(job: Job | None) -> None:
    assert keep_seconds(entry_of(job, None), NOW, RETENTION, Random(7)) == 0


@given(st.timedeltas(timedelta(), timedelta(days=40)), st.timedeltas(timedelta(), timedelta(days=2)), st.integers())
def test_no_entry_outlives_its_row(age: timedelta, late: timedelta, seed: int) -> None:
    made = NOW - age
    job = a_job(made=made, created=made + late)
    rows_end = datetime.fromtimestamp(round(made.timestamp() * 1000) / 1000, UTC) + RETENTION

    seconds = keep_seconds(entry_of(job), NOW, RETENTION, Random(seed))

    assert NOW + timedelta(seconds=seconds) <= max(rows_end, NOW)


def test_a_row_with_an_id_of_celerys_is_kept_by_its_own_time() -> None:
    job = replace(a_job(created=NOW - RETENTION + timedelta(seconds=10)), id=uuid4())

    assert keep_seconds(entry_of(job), NOW, RETENTION, Random(7)) <= 10
