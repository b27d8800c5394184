from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from taskplatform.errors import InvalidInput
from taskplatform.job import AttemptEnd, NewJob, Reason, State
from taskplatform.metrics import Part
from taskplatform.store.contract import BuriedMessage, JobFilter, LetterFilter
from taskplatform.store.postgres.conninfo import named
from tests.fixtures.store import TENANT, DrivenStore, a_job, a_lease, death, ids, retry, success
from tests.fixtures.waiting import eventually


def found(store: DrivenStore, limit: int = 100, **wanted: Any) -> list[UUID]:
    return [job.id for job in store.wait(store.services.search(JobFilter(tenant=TENANT, **wanted), limit))]


def newest_first(*jobs: NewJob) -> list[UUID]:
    return sorted(ids(jobs), reverse=True)


def test_an_unknown_job_is_left_out(store: DrivenStore) -> None:
    job = a_job()
    store.accepted(job)

    assert set(store.wait(store.services.get([job.id, uuid4()]))) == {job.id}


def test_attempts_are_told_in_order_with_the_running_one_last(store: DrivenStore) -> None:
    job = a_job()
    store.end(retry(store.running(job)))
    store.wait(store.services.release_due(1))
    store.started(job, worker="worker-2")

    first, second = store.wait(store.services.attempts(job.id))

    assert (first.number, first.end, first.worker) == (1, AttemptEnd.FAILED, "worker-1")
    assert (second.number, second.end, second.worker, second.ended_at) == (2, None, "worker-2", None)


def test_a_search_gives_live_and_ended_jobs_with_the_newest_first(store: DrivenStore) -> None:
    jobs = [a_job() for _ in range(6)]
    store.accept(*jobs)
    for job in jobs[::2]:
        store.end(success(store.started(job)))

    assert found(store) == newest_first(*jobs)


def test_pages_follow_each_other_without_gap_or_overlap(store: DrivenStore) -> None:
    jobs = [a_job() for _ in range(7)]
    store.accept(*jobs)
    for job in jobs[::2]:
        store.end(success(store.started(job)))

    pages: list[list[UUID]] = [found(store, 3)]
    while pages[-1]:
        pages.append(found(store, 3, before=pages[-1][-1]))

    assert [job_id for page in pages for job_id in page] == newest_first(*jobs)


def test_a_search_can_want_any_states(store: DrivenStore) -> None:
    jobs = {
        State.QUEUED: a_job(),
        State.SCHEDULED: a_job(state=State.SCHEDULED, due_at=datetime.now(UTC) + timedelta(days=1)),
        State.BLOCKED: a_job(state=State.BLOCKED, blocked_on="queue_full"),
        State.RUNNING: a_job(),
        State.RETRYING: a_job(),
        State.SUCCEEDED: a_job(),
        State.DEAD: a_job(),
    }
    store.accept(*jobs.values())
    claimed = {
        state: store.started(jobs[state]) for state in (State.RUNNING, State.RETRYING, State.SUCCEEDED, State.DEAD)
    }
    store.end(retry(claimed[State.RETRYING], 3600.0), success(claimed[State.SUCCEEDED]), death(claimed[State.DEAD]))

    assert {state: found(store, states=frozenset({state})) for state in jobs} == {
        state: [job.id] for state, job in jobs.items()
    }
    assert found(store, states=frozenset({State.DEAD, State.QUEUED})) == newest_first(
        jobs[State.DEAD], jobs[State.QUEUED]
    )


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"task": "shop.pack"}, {"task": "shop.pack"}),
        ({"pool": "mail"}, {"pool": "mail"}),
        ({"tags": ("a", "blue")}, {"tag": "blue"}),
        ({"tags": ("'; DROP TABLE jobs; --",)}, {"tag": "'; DROP TABLE jobs; --"}),
        ({"tags": ("100%s", "%(a)s")}, {"tag": "%(a)s"}),
    ],
)
def test_a_search_can_want_one_of_many(store: DrivenStore, changes: dict[str, Any], wanted: dict[str, Any]) -> None:
    live, ended = a_job(**changes), a_job(**changes)
    store.accept(live, ended, a_job(), a_job(tags=("b",)))
    store.end(success(store.started(ended)))

    assert found(store, **wanted) == newest_first(live, ended)


def test_a_search_can_want_a_time(store: DrivenStore) -> None:
    old, new = a_job(), a_job()
    store.accept(old, new)
    store.rows("UPDATE jobs SET created_at = now() - interval '1 day' WHERE id = %s", old.id)
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)

    assert found(store, created_after=an_hour_ago) == [new.id]
    assert found(store, created_before=an_hour_ago) == [old.id]


def test_a_search_sees_no_other_tenant(store: DrivenStore) -> None:
    store.accepted(a_job(tenant="umbrella"))

    assert found(store) == []


def test_a_search_that_takes_too_long_is_refused(store: DrivenStore, database: str) -> None:
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE jobs")

        with pytest.raises(InvalidInput, match="too long"):
            found(store)


@pytest.mark.parametrize("text", ["\0", "\ud800"])
def test_a_search_for_impossible_text_is_refused(store: DrivenStore, text: str) -> None:
    with pytest.raises(InvalidInput):
        found(store, tag=text)


def test_jobs_that_have_ended_are_told_apart(store: DrivenStore) -> None:
    done, live = a_job(), a_job()
    store.end(success(store.running(done)))
    store.accepted(live)

    assert store.wait(store.services.done_among([done.id, live.id, uuid4()])) == {done.id}


def test_dead_letters_are_filtered_and_paged(store: DrivenStore) -> None:
    jobs = [a_job(), a_job(), a_job(task="shop.pack")]
    for job in jobs:
        store.end(death(store.running(job)))
    foreign = BuriedMessage(reason=Reason.FORGED, queue="jobs.default.dead", detail="", headers="{}", raw=b"x")
    store.wait(store.services.bury([foreign]))

    def letters(limit: int = 10, **wanted: Any) -> list[UUID | None]:
        found = store.wait(store.services.letters(LetterFilter(**wanted), limit))
        return [letter.job_id for letter in found]

    newest, *_ = store.wait(store.services.letters(LetterFilter(tenant=TENANT), 1))
    assert letters(tenant=TENANT) == ids(jobs[::-1])
    assert letters(tenant=None) == [None, *ids(jobs[::-1])]
    assert letters(tenant=None, reason="forged") == [None]
    assert letters(tenant=TENANT, task="shop.pack") == [jobs[2].id]
    assert letters(tenant=TENANT, before=(newest.id,)) == ids(jobs[1::-1])
    assert letters(tenant=TENANT, replayed=True) == []


def test_an_unknown_dead_letter_is_none(store: DrivenStore) -> None:
    assert store.wait(store.services.letter(12345)) is None


def test_the_batches_in_the_outbox_are_counted(store: DrivenStore) -> None:
    store.accept(a_job(), a_job())
    store.accept(a_job())

    assert store.wait(store.services.glance()).outbox == 2


def test_workers_are_listed_with_their_leases(store: DrivenStore) -> None:
    store.work.renew(a_lease("first", seconds=60.0))
    store.work.renew(a_lease("second", seconds=0.0))

    alive, silent = store.wait(store.services.glance()).workers

    assert (alive.id, alive.pool, alive.processes, alive.draining) == ("first", "default", 2, False)
    assert 0 < alive.lease_seconds <= 60
    assert silent.lease_seconds <= 0


def test_processes_tell_their_version_by_the_name_of_their_sessions(store: DrivenStore) -> None:
    ours = metadata.version("taskplatform")
    names = ["taskplatform worker 9.9.9", "taskplatform", "taskplatform worker", "psql"]
    with ExitStack() as sessions:
        for part in (Part.API, Part.WORKER, Part.WORKER):
            sessions.enter_context(psycopg.connect(named(store.dsn, part)))
        for name in names:
            sessions.enter_context(psycopg.connect(make_conninfo(store.dsn, application_name=name)))

        versions = store.wait(store.services.glance()).versions

    assert versions == {"api": [ours], "worker": [ours, "9.9.9"]}


def test_a_connection_string_that_has_a_name_keeps_it(store: DrivenStore) -> None:
    assert named("application_name=shop", Part.API) == "application_name=shop"


def test_what_has_passed_is_counted(store: DrivenStore) -> None:
    before = store.wait(store.services.glance()).totals
    store.end(success(store.running()), death(store.running()))

    def passed() -> tuple[int, ...]:
        now = store.wait(store.services.glance()).totals
        return tuple(getattr(now, name) - getattr(before, name) for name in ("accepted", "attempts", "ended", "dead"))

    # Postgres publishes what a connection has counted about once a second, when that connection is used or rests.
    eventually(lambda: passed() == (2, 2, 2, 1), within_seconds=30)
