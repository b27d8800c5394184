from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg

from taskplatform.ids import Locator, lowest_id_at, new_job_id
from taskplatform.keeping import Policy
from taskplatform.store.postgres.partitions import DAYS_AHEAD, PARTITIONED, add_calls
from tests.fixtures.store import DrivenStore, a_job, death, success
from tests.fixtures.waiting import eventually

TODAY = datetime.now(UTC).date()
THIRTY_DAYS = Policy(default_days=30.0)


def prune(store: DrivenStore, days: float = 30.0, limit: int = 1000) -> dict[str, int]:
    pruned = store.wait(store.services.prune(Policy(default_days=days), limit))
    return {kind: count for kind, count in pruned.counts.items() if count}


def pruned_all(store: DrivenStore, policy: Policy = THIRTY_DAYS, limit: int = 1000) -> dict[str, int]:
    done: Counter[str] = Counter()
    for _ in range(20):
        pruned = store.wait(store.services.prune(policy, limit))
        done.update(pruned.counts)
        if not pruned.more:
            return {kind: count for kind, count in done.items() if count}
    raise AssertionError("it never ends")


def partitions(store: DrivenStore, parent: str = "finished_jobs") -> list[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1"
    return [name for (name,) in store.rows(query, parent)]


def milliseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def ended(store: DrivenStore, job_id: UUID) -> None:
    store.end(success(store.running(a_job(id=job_id))))


def add_partition(store: DrivenStore, day: date) -> None:
    bounds = [str(lowest_id_at(milliseconds(edge))) for edge in (day, day + timedelta(days=1))]
    for parent, key in (("finished_jobs", "id"), ("attempts", "job_id")):
        store.rows("SELECT add_partition(%s, %s, %s, %s, %s)", parent, key, f"{day:%Y%m%d}", *bounds)


def drop_last_day(store: DrivenStore) -> date:
    day = TODAY + timedelta(days=DAYS_AHEAD)
    store.rows(f"DROP TABLE finished_jobs_{day:%Y%m%d}, attempts_{day:%Y%m%d}")
    return day


def test_the_partitions_of_the_coming_days_are_made(store: DrivenStore) -> None:
    tomorrow = f"finished_jobs_{TODAY + timedelta(days=1):%Y%m%d}"
    store.rows(f"DROP TABLE {tomorrow}")

    assert prune(store) == {"partitions_added": 1}
    assert tomorrow in partitions(store)


def test_an_ended_job_goes_into_the_partition_of_its_day(store: DrivenStore) -> None:
    ended(store, new_job_id(Locator(region=0, shard=0)))

    assert store.rows("SELECT DISTINCT tableoid::regclass::text FROM finished_jobs") == [
        (f"finished_jobs_{TODAY:%Y%m%d}",)
    ]


def test_what_the_default_partition_holds_of_a_day_moves_into_its_own(store: DrivenStore) -> None:
    day = drop_last_day(store)
    early = new_job_id(Locator(region=0, shard=0), milliseconds=milliseconds(day) + 5)
    ended(store, early)

    assert prune(store) == {"partitions_added": 2}
    assert store.job(early).done
    assert len(store.ends(early)) == 1
    assert store.rows("SELECT tableoid::regclass::text FROM finished_jobs") == [(f"finished_jobs_{day:%Y%m%d}",)]
    assert store.rows("SELECT tableoid::regclass::text FROM attempts") == [(f"attempts_{day:%Y%m%d}",)]


def test_a_day_of_which_the_default_partition_holds_a_lot_is_skipped(store: DrivenStore) -> None:
    day = drop_last_day(store)
    store.rows(
        "INSERT INTO attempts (job_id, number, ended, worker, started_at, ended_at)"
        " SELECT %s, n, 'failed', 'w', now(), now() FROM generate_series(1, 10001) AS n",
        new_job_id(Locator(region=0, shard=0), milliseconds=milliseconds(day) + 5),
    )

    assert prune(store) == {"partitions_added": 1}
    assert f"attempts_{day:%Y%m%d}" not in partitions(store, "attempts")


def test_whoever_ends_a_job_does_not_wait_for_a_partition_that_is_added(store: DrivenStore, database: str) -> None:
    day = drop_last_day(store)
    running = store.running(a_job())
    of_day = store.running(a_job(id=new_job_id(Locator(region=0, shard=0), milliseconds=milliseconds(day) + 5)))
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(database) as adding, ThreadPoolExecutor(1) as threads:
        for made in add_calls(TODAY):
            psycopg.RawCursor(adding).execute(made.sql.encode(), made.parameters)
        ending = threads.submit(store.end, success(running))
        try:
            eventually(ending.done, within_seconds=30)
            # This one has chosen the default partition when its own comes.
            moved = threads.submit(store.end, success(of_day))
            eventually(lambda: store.rows(waits) == [(1,)], within_seconds=30)
        finally:
            adding.commit()

    assert ending.result() == {running.id}
    assert moved.result() == {of_day.id}
    places = "SELECT tableoid::regclass::text FROM finished_jobs WHERE id = %s AND state = 'succeeded'"
    assert store.rows(places, of_day.id) == [(f"finished_jobs_{day:%Y%m%d}",)]


def test_ids_without_a_time_do_not_lie_where_days_are_made(store: DrivenStore) -> None:
    early, late = UUID("00ffffff-0000-4000-8000-000000000000"), UUID("04000000-0000-4000-8000-000000000000")
    for job_id in (early, late):
        ended(store, job_id)

    for table, key in PARTITIONED.items():
        places = dict(store.rows(f"SELECT {key}, tableoid::regclass::text FROM {table}"))
        assert places == {early: f"{table}_stray", late: f"{table}_undated"}


def test_partitions_past_retention_are_dropped(store: DrivenStore) -> None:
    kept, dropped = TODAY - timedelta(days=29), TODAY - timedelta(days=32)
    add_partition(store, kept)
    add_partition(store, dropped)

    assert pruned_all(store)["partitions_dropped"] == 2
    assert f"attempts_{kept:%Y%m%d}" in partitions(store, "attempts")
    assert f"finished_jobs_{dropped:%Y%m%d}" not in partitions(store)


def test_a_partition_that_is_read_for_long_is_left_for_later(store: DrivenStore, database: str) -> None:
    day = TODAY - timedelta(days=40)
    add_partition(store, day)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM finished_jobs")

        assert pruned_all(store) == {}

    assert pruned_all(store) == {"partitions_dropped": 2}


def test_old_jobs_without_a_partition_are_forgotten_a_batch_at_a_time(store: DrivenStore) -> None:
    old = [UUID(int=number, version=4) for number in range(5)]
    for job_id in old:
        ended(store, job_id)
    for table in ("finished_jobs", "attempts"):
        store.rows(
            "SET session_replication_role = replica; " + f"UPDATE {table} SET ended_at = now() - interval '31 days'"
        )

    assert prune(store, limit=3) == {"jobs": 3, "attempts": 3}
    assert prune(store, limit=3) == {"jobs": 2, "attempts": 2}
    assert store.wait(store.services.get(old)) == {}


def test_young_jobs_without_a_partition_are_kept(store: DrivenStore) -> None:
    ended(store, UUID(int=1, version=4))

    assert prune(store) == {}


def test_keys_whose_time_is_over_are_forgotten(store: DrivenStore) -> None:
    store.accept(a_job(key="old", fingerprint="f"), a_job(key="new", fingerprint="f"))
    store.rows("UPDATE idempotency_keys SET expires_at = now() - interval '1 second' WHERE key = 'old'")

    assert prune(store) == {"keys": 1}
    assert store.rows("SELECT key FROM idempotency_keys") == [("new",)]


def test_old_dead_letters_are_forgotten(store: DrivenStore) -> None:
    store.end(death(store.running()), death(store.running()))
    store.rows("UPDATE dead_letters SET created_at = now() - interval '31 days' WHERE id = 1")

    assert prune(store) == {"letters": 1}


def test_dispatchers_may_prune_at_once(store: DrivenStore) -> None:
    drop_last_day(store)

    pruned = [store.begin(store.services.prune(THIRTY_DAYS, 10)) for _ in range(6)]

    assert sum(each.result(60).counts["partitions_added"] for each in pruned) == 2
