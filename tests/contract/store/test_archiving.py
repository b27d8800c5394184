"""Nothing is forgotten before the archive has it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec
import pytest

from taskplatform.archive.format import plain
from taskplatform.errors import ArchiveUnavailable
from taskplatform.job import State
from taskplatform.keeping import FOLD_ROWS, Policy, Rule
from taskplatform.store.postgres.archiving import end_archiving
from taskplatform.store.upkeep import Archive, ArchiveBatch, Pruned
from tests.fixtures.archive import FolderArchive
from tests.fixtures.history import TODAY, add_day, add_ended, attempted_ids, ended_ids
from tests.fixtures.store import TENANT, DrivenStore, a_job, success

LONG_AGO = TODAY - timedelta(days=100)
POLICY = Policy(default_days=30, rules=(Rule(tenant="globex", retention_days=365, dead_retention_days=365),))


def prune(store: DrivenStore, archive: Archive | None, limit: int = 5000, policy: Policy = POLICY) -> Pruned:
    done: Counter[str] = Counter()
    for _ in range(50):
        pruned = store.wait(store.services.prune(policy, limit, archive))
        done.update(pruned.counts)
        if not pruned.more:
            counts = {kind: count for kind, count in done.items() if count}
            return Pruned(counts=counts, more=False, trouble=pruned.trouble)
    raise AssertionError("it never ends")


def a_day_later(store: DrivenStore) -> None:
    store.rows("UPDATE retention_parts SET look_at = look_at - interval '25 hours'")


class Watching:
    """Calls back before each chunk of records goes on into the archive, and before and after each batch is closed."""

    def __init__(
        self,
        inner: Archive,
        *,
        adds: Callable[[int], object] = lambda _: None,
        closes: Callable[[], object] = lambda: None,
        closed: Callable[[], object] = lambda: None,
    ) -> None:
        self._inner = inner
        self.adds = adds
        self.closes = closes
        self.closed = closed

    def begin(self, part: str, sequence: int) -> ArchiveBatch:
        return _WatchedBatch(self, self._inner.begin(part, sequence))


class _WatchedBatch:
    def __init__(self, owner: Watching, inner: ArchiveBatch) -> None:
        self._owner = owner
        self._inner = inner

    @property
    def full(self) -> bool:
        return self._inner.full

    async def add(self, records: Sequence[str]) -> None:
        await asyncio.to_thread(self._owner.adds, len(records))
        await self._inner.add(records)

    async def close(self) -> None:
        await asyncio.to_thread(self._owner.closes)
        await self._inner.close()
        self._owner.closed()


def crashing(archive: Archive) -> Archive:
    """Have it fail once, when it has a batch and the store does not know yet."""
    crashes = iter([ArchiveUnavailable("a crash")])

    def crash() -> None:
        for error in crashes:
            raise error

    return Watching(archive, closed=crash)


def test_jobs_are_forgotten_when_the_archive_has_them(store: DrivenStore, archive: FolderArchive) -> None:
    day = add_day(store, LONG_AGO)
    kept = add_ended(store, LONG_AGO, 3, tenant="globex")
    gone = add_ended(store, LONG_AGO, 4) + add_ended(store, LONG_AGO, 2, state=State.DEAD, task="mail.send")

    assert prune(store, archive.of()).counts == {"jobs": 6, "attempts": 6}

    assert ended_ids(store) == attempted_ids(store) == set(kept)
    assert archive.ids() == sorted(gone)
    (manifest,) = archive.manifests()
    assert (manifest.part, manifest.sequence, manifest.jobs, manifest.attempts) == (day.name, 0, 6, 6)
    assert (manifest.states, manifest.tasks) == ({"dead": 2, "succeeded": 4}, ["mail.send", "shop.ship"])
    a_day_later(store)
    assert prune(store, archive.of()).counts == {"partitions_dropped": 2}
    assert ended_ids(store) == set(kept)


def test_a_record_has_all_that_the_store_had(store: DrivenStore, archive: FolderArchive) -> None:
    add_day(store, LONG_AGO)
    (job_id,) = add_ended(store, LONG_AGO)
    columns = "SELECT to_jsonb(t) FROM {} t"
    ((job,),) = store.rows(columns.format("finished_jobs"))
    ((attempt,),) = store.rows(columns.format("attempts"))

    prune(store, archive.of())

    (found,) = archive.found()
    assert found.job.id == job_id
    assert msgspec.json.decode(found.line) == {"job": job, "attempts": [attempt]}
    assert plain(found.line)["job"]["result"] == "Malmö"


@pytest.mark.parametrize("limit", [3, 5000])
def test_after_a_crash_the_same_objects_are_written_again(
    store: DrivenStore, archive: FolderArchive, limit: int
) -> None:
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, 7) + add_ended(store, LONG_AGO - timedelta(days=1), 7)
    broken = crashing(archive.of())

    assert prune(store, broken, limit).trouble == "a crash"
    written = archive.files()
    assert written
    assert ended_ids(store) == set(ids)
    prune(store, broken, limit)

    assert set(written) <= set(archive.files())
    assert archive.ids() == sorted(ids)
    assert ended_ids(store) == attempted_ids(store) == set()


@pytest.mark.parametrize("fault", ["away", "truncating"])
def test_a_broken_archive_stops_nothing_but_forgetting(store: DrivenStore, archive: FolderArchive, fault: str) -> None:
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, 5)
    store.accept(a_job(key="old", fingerprint="f"))
    store.rows("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
    setattr(archive, fault, True)

    pruned = prune(store, archive.of())

    assert pruned.trouble.startswith("the archive")
    assert pruned.counts == {"keys": 1}
    assert ended_ids(store) == attempted_ids(store) == set(ids)

    setattr(archive, fault, False)
    assert prune(store, archive.of()) == Pruned(counts={"jobs": 5, "attempts": 5}, more=False)
    assert archive.ids() == sorted(ids)


def test_a_job_that_is_replayed_meanwhile_is_archived_with_its_second_end(
    store: DrivenStore, archive: FolderArchive
) -> None:
    add_day(store, LONG_AGO)
    (job_id,) = add_ended(store, LONG_AGO, state=State.DEAD)
    prune(store, crashing(archive.of()))
    store.wait(store.services.replay(TENANT, [job_id]))

    prune(store, archive.of())

    assert store.job(job_id).state is State.QUEUED
    assert [found.job.state for found in archive.found()] == ["dead"]


def test_a_job_that_ends_again_while_others_are_archived_is_kept_from_then_on(
    store: DrivenStore, archive: FolderArchive
) -> None:
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, 60, state=State.DEAD)
    last = ids[-1]

    def replay_and_end(_: int) -> None:
        if store.job(last).state is State.DEAD:
            store.wait(store.services.replay(TENANT, [last]))
            store.end(success(store.started(a_job(id=last), series=1)))

    prune(store, Watching(archive.of(), adds=replay_and_end))

    assert store.job(last).state is State.SUCCEEDED
    assert ended_ids(store) == {last}
    assert archive.ids() == sorted(ids[:-1])


def test_large_jobs_are_asked_for_a_few_at_a_time(store: DrivenStore, archive: FolderArchive) -> None:
    add_day(store, LONG_AGO)
    add_ended(store, LONG_AGO, 5, result=f'"{"x" * 1_500_000}"')
    chunks: list[int] = []

    prune(store, Watching(archive.of(), adds=chunks.append))

    assert chunks == [2, 2, 1]
    assert ended_ids(store) == set()


def test_postgres_waits_for_a_slow_archive_longer_than_for_others(store: DrivenStore, archive: FolderArchive) -> None:
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, 5)
    ((name,),) = store.rows("SELECT current_database()")
    store.rows(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '1s'")
    slow = Watching(archive.of(), closes=lambda: store.rows("SELECT pg_sleep(1.5)"))

    assert prune(store, slow).counts == {"jobs": 5, "attempts": 5}
    assert archive.ids() == sorted(ids)


def test_a_sweep_that_another_policy_left_is_finished_first(store: DrivenStore, archive: FolderArchive) -> None:
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, 5) + add_ended(store, LONG_AGO, 5, tenant="globex")
    prune(store, crashing(archive.of()))
    written = archive.files()

    prune(store, archive.of(), policy=Policy(default_days=20))

    assert set(written) <= set(archive.files())
    assert archive.ids() == sorted(ids)
    assert ended_ids(store) == set()


def test_a_sweep_that_another_policy_left_takes_nothing_that_is_to_be_kept(
    store: DrivenStore, archive: FolderArchive
) -> None:
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, FOLD_ROWS + 1)
    prune(store, crashing(archive.of()))

    assert prune(store, archive.of(), policy=Policy(default_days=200)).counts == {}
    assert ended_ids(store) == set(ids)


def test_dispatchers_that_archive_at_once_archive_each_job_once(store: DrivenStore, archive: FolderArchive) -> None:
    ids = []
    for days in range(3):
        add_day(store, LONG_AGO + timedelta(days=days))
        ids += add_ended(store, LONG_AGO + timedelta(days=days), 120)

    # They may leave a day to each other, and then none of them has more to do in this round.
    while ended_ids(store):
        rounds = [store.begin(store.services.prune(POLICY, 25, archive.of())) for _ in range(4)]
        for each in rounds:
            each.result(60)

    assert archive.ids() == sorted(ids)


def test_objects_are_closed_when_they_are_large(
    store: DrivenStore, archive: FolderArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskplatform.archive.writer.MOST_RAW_BYTES", 1)
    ids = add_ended(store, LONG_AGO, 120)

    assert prune(store, archive.of()).counts == {"jobs": 120, "attempts": 120}
    assert [(each.part, each.sequence, each.jobs) for each in archive.manifests()] == [
        ("rest", 0, 50),
        ("rest", 1, 50),
        ("rest", 2, 20),
    ]
    assert archive.ids() == sorted(ids)


def test_whoever_has_no_archive_forgets_nothing_that_others_archive(store: DrivenStore, archive: FolderArchive) -> None:
    prune(store, archive.of())
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, 5) + add_ended(store, LONG_AGO - timedelta(days=1), 5)
    store.accept(*(a_job(key=f"old-{number}", fingerprint="f") for number in range(5)))
    store.rows("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")

    pruned = prune(store, None, limit=2)

    assert "TASKPLATFORM_ARCHIVE_URL is not set here" in pruned.trouble
    assert pruned.counts == {"keys": 5}
    assert ended_ids(store) == attempted_ids(store) == set(ids)
    assert prune(store, archive.of()).trouble == ""
    assert archive.ids() == sorted(ids)


def test_whoever_has_no_archive_stops_forgetting_when_others_begin_to_archive(store: DrivenStore) -> None:
    days = [LONG_AGO, LONG_AGO + timedelta(days=1)]
    for day in days:
        add_day(store, day)
    _, kept = (add_ended(store, day, 5) for day in days)
    store.rows(
        "CREATE FUNCTION begin_to_archive() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO archiving DEFAULT VALUES; RETURN OLD; END $$"
    )
    # The first day that is dropped is the moment.
    store.rows(
        "CREATE TRIGGER begin_to_archive BEFORE DELETE ON retention_parts FOR EACH ROW"
        " EXECUTE FUNCTION begin_to_archive()"
    )

    pruned = prune(store, None)

    assert "TASKPLATFORM_ARCHIVE_URL is not set here" in pruned.trouble
    assert pruned.counts == {"partitions_dropped": 2}
    assert ended_ids(store) == set(kept)


def test_an_archive_that_is_said_to_be_off_holds_nobody_up(
    store: DrivenStore, archive: FolderArchive, database: str
) -> None:
    prune(store, archive.of())
    add_day(store, LONG_AGO)
    add_ended(store, LONG_AGO, 5)

    assert end_archiving(database)

    assert prune(store, None) == Pruned(counts={"partitions_dropped": 2}, more=False)
    assert archive.files() == []
    assert not end_archiving(database)


def test_an_archive_that_is_switched_on_gets_what_is_still_there(store: DrivenStore, archive: FolderArchive) -> None:
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, 5)
    store.wait(store.services.prune(POLICY, 2, None))

    prune(store, archive.of())

    assert archive.ids() == sorted(ids)
