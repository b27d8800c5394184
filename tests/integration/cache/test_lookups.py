"""Jobs looked up through the cache: what many ask is read once, and nobody is shown what is not its own or too old."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from taskplatform.cache.entry import key_of
from taskplatform.errors import StoreUnavailable
from taskplatform.freshness import LATEST, START, Position
from taskplatform.ids import Locator, new_job_id
from taskplatform.job import Job, NewJob, State
from taskplatform.lookups import Cached
from taskplatform.store.contract import Look
from taskplatform.store.postgres.store import PostgresStore
from tests.fixtures.cache import NewCached
from tests.fixtures.replica import Standby
from tests.fixtures.store import TENANT, DrivenStore, a_job, success
from tests.fixtures.waiting import eventually

READS = 10_000
AT_ONCE = 200


class Counting(PostgresStore):
    """A store that counts what is looked up in it, and can be told to be away."""

    looks = 0
    away = False

    async def look(self, ids: Sequence[UUID], seen: Position) -> Look:
        """Count, and look."""
        self.looks += 1
        if self.away:
            raise StoreUnavailable("away")
        return await super().look(ids, seen)


class Process:
    """One of several processes that read through the same cache."""

    def __init__(self, store: DrivenStore, new_cached: NewCached, replicas: Sequence[str]) -> None:
        self._store = store
        self.source = Counting(store.dsn, replicas=replicas)
        self.lookups: Cached = new_cached(self.source)

    def one(self, job: NewJob, seen: Position = LATEST, tenant: str = TENANT) -> Job | None:
        """Look one job up."""
        return self._store.wait(self.lookups.one(tenant, job.id, seen))

    def many(self, *jobs: NewJob, tenant: str = TENANT) -> dict[UUID, Job]:
        """Look several jobs up."""
        return self._store.wait(self.lookups.many(tenant, [job.id for job in jobs], LATEST))

    def close(self) -> None:
        """Close the connections."""
        self._store.wait(self.source.close())


@pytest.fixture
def processes(store: DrivenStore, standby: Standby, new_cached: NewCached) -> Sequence[Process]:
    """Two processes."""
    made = [Process(store, new_cached, [standby.dsn(store.dsn)]) for _ in range(2)]
    standby.catch_up()
    return made


@pytest.fixture(autouse=True)
def closed(processes: Sequence[Process]) -> object:
    """Close them when the test ends."""
    yield
    for process in processes:
        process.close()


def ended(store: DrivenStore) -> NewJob:
    job = a_job()
    store.end(success(store.running(job), result="42"))
    return job


def looks(processes: Sequence[Process]) -> int:
    return sum(process.source.looks for process in processes)


def read_at_once(store: DrivenStore, processes: Sequence[Process], job: NewJob, reads: int) -> set[str | None]:
    async def read(lookups: Cached, count: int) -> set[str | None]:
        found = [await lookups.one(TENANT, job.id, LATEST) for _ in range(count)]
        return {one.result if one else None for one in found}

    async def read_all() -> set[str | None]:
        each = reads // AT_ONCE
        return set().union(*await asyncio.gather(*(read(processes[n % 2].lookups, each) for n in range(AT_ONCE))))

    return store.wait(read_all())


def test_ten_thousand_reads_of_an_ended_job_are_one_read_of_the_store(
    store: DrivenStore, processes: Sequence[Process]
) -> None:
    job = ended(store)

    assert read_at_once(store, processes, job, READS) == {"42"}

    assert looks(processes) == 1


def test_when_an_entry_expires_all_who_want_it_cause_one_read(
    store: DrivenStore, processes: Sequence[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ended(store)
    monkeypatch.setattr("taskplatform.cache.entry.SETTLED_SECONDS", 0.2)
    assert processes[0].one(job)
    key = key_of(TENANT, job.id)
    eventually(lambda: store.wait(processes[0].lookups._cache.get([key])) == [None], within_seconds=30)
    monkeypatch.undo()

    assert read_at_once(store, processes, job, 2 * AT_ONCE) == {"42"}

    assert looks(processes) == 2


def test_those_who_want_one_live_job_at_once_are_served_by_a_read_that_began_after_they_came(
    store: DrivenStore, processes: Sequence[Process]
) -> None:
    job = a_job()
    store.accepted(job)

    async def read_all() -> list[Job | None]:
        return await asyncio.gather(*(processes[0].lookups.one(TENANT, job.id, LATEST) for _ in range(AT_ONCE)))

    assert {one.state for one in store.wait(read_all()) if one} == {State.QUEUED}
    assert looks(processes) == 1


def test_a_live_job_is_shown_out_of_the_cache_to_those_alone_who_have_seen_no_more(
    store: DrivenStore, processes: Sequence[Process]
) -> None:
    job = a_job()
    store.accepted(job)
    assert processes[0].one(job)
    store.started(job)
    before = looks(processes)

    old, now = processes[1].one(job, START), processes[1].one(job, LATEST)

    assert (old and old.state, now and now.state) == (State.QUEUED, State.RUNNING)
    assert looks(processes) == before + 1


def test_what_is_known_to_be_absent_never_hides_a_new_job(store: DrivenStore, processes: Sequence[Process]) -> None:
    writer, reader = processes
    job, stranger = a_job(), a_job()
    assert [reader.one(each, START) for each in (job, job, stranger)] == [None, None, None]
    assert reader.source.looks == 2

    store.wait(writer.source.accept([job]))
    token = writer.source.position

    assert token
    assert reader.one(job, token)
    assert reader.one(job, LATEST)
    assert eventually(lambda: reader.one(job, START), within_seconds=30)


def test_tenants_stay_apart(store: DrivenStore, processes: Sequence[Process]) -> None:
    job = ended(store)

    for process in processes:
        assert [process.one(job, LATEST, tenant) for tenant in (TENANT, "other", f"{TENANT}:")][1:] == [None, None]
        assert process.many(job, tenant="other") == {}
        assert process.many(job).keys() == {job.id}


def test_several_jobs_take_one_read_for_those_that_are_not_kept(
    store: DrivenStore, processes: Sequence[Process]
) -> None:
    known, other, missing = ended(store), ended(store), a_job()
    assert processes[0].one(known)

    found = processes[1].many(known, other, missing, known)
    again = processes[1].many(other, known)

    assert found.keys() == {known.id, other.id}
    assert again.keys() == {known.id, other.id}
    assert processes[1].source.looks == 1


def test_ended_jobs_are_shown_while_the_store_is_away(store: DrivenStore, processes: Sequence[Process]) -> None:
    job, live = ended(store), a_job()
    store.accepted(live)
    assert processes[0].one(job)
    assert processes[0].one(live)
    processes[1].source.away = True

    assert processes[1].one(job)
    with pytest.raises(StoreUnavailable):
        processes[1].one(live)
    with pytest.raises(StoreUnavailable):
        processes[1].many(job, live)


def test_a_large_job_and_one_whose_row_may_go_are_not_kept(store: DrivenStore, processes: Sequence[Process]) -> None:
    large = a_job(body=f'[["{"x" * 70_000}"],{{}},{{}}]')
    old = a_job(id=new_job_id(Locator(region=0, shard=7), milliseconds=1))
    for job in (large, old):
        store.end(success(store.running(job)))

    for job in (large, large, old, old):
        assert processes[0].one(job)

    assert looks(processes) == 4


def test_a_failed_read_is_told_to_all_who_wait_and_holds_nobody_up(
    store: DrivenStore, processes: Sequence[Process]
) -> None:
    job = ended(store)
    processes[0].source.away = True

    async def read_all() -> list[object]:
        reads = (processes[0].lookups.one(TENANT, job.id, LATEST) for _ in range(AT_ONCE))
        return await asyncio.gather(*reads, return_exceptions=True)

    assert {type(answer) for answer in store.wait(read_all())} == {StoreUnavailable}
    assert looks(processes) == 1
    processes[0].source.away = False
    assert processes[1].one(job)
    assert processes[0].one(job)
