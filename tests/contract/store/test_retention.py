"""What retention forgets, and what it never may."""

from collections import Counter
from datetime import date, timedelta
from uuid import UUID

import psycopg
import pytest

from taskplatform.ids import Locator, new_job_id
from taskplatform.job import State
from taskplatform.keeping import FOLD_ROWS, Policy, Rule
from tests.fixtures.history import TODAY, add_day, add_ended, attempted_ids, days_ago, ended_ids, old_ids
from tests.fixtures.store import TENANT, DrivenStore, a_job, death, retry, success
from tests.fixtures.waiting import eventually

LONG_AGO = TODAY - timedelta(days=100)
POLICY = Policy(
    default_days=30,
    rules=(
        Rule(tenant="acme", task="reports.*", retention_days=365, dead_retention_days=365),
        Rule(tenant="acme", retention_days=7, dead_retention_days=200),
    ),
)


def prune(store: DrivenStore, policy: Policy = POLICY, limit: int = 5000) -> dict[str, int]:
    done: Counter[str] = Counter()
    for _ in range(50):
        pruned = store.wait(store.services.prune(policy, limit))
        done.update(pruned.counts)
        if not pruned.more:
            return {kind: count for kind, count in done.items() if count}
    raise AssertionError("it never ends")


def partitions(store: DrivenStore) -> set[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'finished_jobs'::regclass"
    return {name for (name,) in store.rows(query)}


@pytest.mark.parametrize("limit", [2, 5000])
def test_each_tenant_and_task_has_its_own_time(store: DrivenStore, limit: int) -> None:
    day = TODAY - timedelta(days=20)
    add_day(store, day)
    kept = add_ended(store, day, FOLD_ROWS, tenant="globex") + add_ended(store, day, 5, task="reports.daily")
    kept += add_ended(store, day, 3, state=State.DEAD)
    gone = add_ended(store, day, 5)

    assert prune(store, limit=limit) == {"jobs": 5, "attempts": 5}
    assert ended_ids(store) == attempted_ids(store) == set(kept)
    assert not ended_ids(store) & set(gone)


def test_a_day_of_many_tenants_is_swept_by_the_policy_of_each(store: DrivenStore) -> None:
    day = TODAY - timedelta(days=20)
    add_day(store, day)
    rules = tuple(
        Rule(tenant=f"tenant-{number}", retention_days=number, dead_retention_days=40) for number in range(2, 40)
    )
    kept = add_ended(store, day, FOLD_ROWS, tenant="tenant-39")
    for number in (*range(2, 20), *range(21, 38)):
        some = add_ended(store, day, 2, tenant=f"tenant-{number}")
        kept += some if number > 20 else []
        kept += add_ended(store, day, 1, tenant=f"tenant-{number}", state=State.DEAD)

    assert prune(store, Policy(default_days=30, rules=rules), limit=7) == {"jobs": 36, "attempts": 36}
    assert ended_ids(store) == attempted_ids(store) == set(kept)


@pytest.mark.parametrize("day", [TODAY - timedelta(days=20), None])
def test_a_sweep_goes_on_behind_the_last_job_that_it_forgot(store: DrivenStore, day: date | None) -> None:
    handed_in = LONG_AGO if day is None else day
    if day is not None:
        add_day(store, day)
        add_ended(store, day, FOLD_ROWS + 1, tenant="globex")
    first, *_ = ids = add_ended(store, handed_in, 6, ended=days_ago(20))
    policy = Policy(default_days=30, rules=(Rule(tenant="acme", retention_days=7, dead_retention_days=7),))
    while first in ended_ids(store):
        store.wait(store.services.prune(policy, 2))
    behind = UUID(int=first.int - 1)
    store.rows(
        "INSERT INTO finished_jobs SELECT"
        " (jsonb_populate_record(f, jsonb_build_object('id', %s::uuid, 'ended_at', %s::timestamptz))).*"
        " FROM finished_jobs f WHERE id = %s",
        *(behind, days_ago(21), ids[-1]),
    )

    while ids[-1] in ended_ids(store):
        store.wait(store.services.prune(policy, 2))

    assert behind in ended_ids(store)
    assert not set(ids) & ended_ids(store)
    prune(store, policy)
    store.rows("UPDATE retention_parts SET look_at = look_at - interval '25 hours'")
    prune(store, policy)
    assert behind not in ended_ids(store)


def test_a_day_of_which_little_is_kept_is_dropped_and_that_moves_out(store: DrivenStore) -> None:
    day = add_day(store, LONG_AGO)
    kept = add_ended(store, LONG_AGO, 5, task="reports.daily") + add_ended(store, LONG_AGO, 3, state=State.DEAD)
    add_ended(store, LONG_AGO, 20)
    add_ended(store, LONG_AGO, 20, tenant="globex")

    assert prune(store) == {"partitions_dropped": 2}
    assert ended_ids(store) == attempted_ids(store) == set(kept)
    assert f"finished_jobs_{day.name}" not in partitions(store)


def test_what_moved_out_goes_when_its_own_time_is_over(store: DrivenStore) -> None:
    add_day(store, LONG_AGO)
    add_ended(store, LONG_AGO, 3, state=State.DEAD)
    prune(store)

    shorter = Policy(default_days=30)

    assert prune(store, shorter) == {"jobs": 3, "attempts": 3}
    assert ended_ids(store) == attempted_ids(store) == set()


def test_a_job_that_ended_late_is_kept_from_its_end(store: DrivenStore) -> None:
    add_day(store, LONG_AGO)
    (late,) = add_ended(store, LONG_AGO, ended=days_ago(1))

    assert prune(store, Policy(default_days=30)) == {"partitions_dropped": 2}
    assert store.job(late).state is State.SUCCEEDED


def test_a_live_job_keeps_its_attempts_when_its_day_is_dropped(store: DrivenStore) -> None:
    add_day(store, LONG_AGO)
    (job_id,) = old_ids(LONG_AGO, 1)
    running = store.running(a_job(id=job_id))
    store.end(retry(running))

    assert prune(store) == {"partitions_dropped": 2}
    assert store.job(job_id).state is State.RETRYING
    assert len(store.ends(job_id)) == 1


def test_a_live_job_whose_day_is_gone_can_still_end(store: DrivenStore) -> None:
    add_day(store, LONG_AGO)
    (job_id,) = old_ids(LONG_AGO, 1)
    running = store.running(a_job(id=job_id))
    prune(store)

    store.end(success(running))

    assert store.job(job_id).state is State.SUCCEEDED
    assert len(store.ends(job_id)) == 1


def test_a_job_that_ends_while_its_day_is_dropped_is_not_lost(store: DrivenStore, database: str) -> None:
    add_day(store, LONG_AGO)
    (job_id,) = old_ids(LONG_AGO, 1)
    running = store.running(a_job(id=job_id))
    store.wait(store.services.prune(POLICY, 5000))  # It only begins to watch the day.
    with psycopg.connect(database) as worker:
        columns = (
            "id, tenant, task, pool, priority, series, attempt, failures, crashes, max_attempts, created_at, tags, body"
        )
        worker.execute(
            f"WITH gone AS (DELETE FROM jobs WHERE id = %s RETURNING *) INSERT INTO finished_jobs ({columns}, state,"
            f" ended_at) SELECT {columns}, 'succeeded', now() FROM gone",
            [running.id],
        )
        pruning = store.begin(store.services.prune(POLICY, 5000))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        eventually(lambda: pruning.done() or store.rows(waits) == [(1,)], within_seconds=30)

    assert pruning.result(60).counts["partitions_dropped"] == 0
    assert prune(store) == {"partitions_dropped": 2}
    assert store.job(job_id).state is State.SUCCEEDED


def test_a_worker_that_ends_a_job_is_never_undone_for_a_drop(store: DrivenStore, database: str) -> None:
    day = add_day(store, LONG_AGO)
    add_ended(store, LONG_AGO)
    store.wait(store.services.prune(POLICY, 5000))  # It only begins to watch the day.
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(database) as worker:
        # In a deadlock it is the one to be undone.
        worker.execute("SET deadlock_timeout = '1ms'")
        # It has come so far when it looks for the partition.
        worker.execute("LOCK TABLE ONLY finished_jobs IN ROW EXCLUSIVE MODE")
        pruning = store.begin(store.services.prune(POLICY, 5000))
        eventually(lambda: pruning.done() or store.rows(waits) == [(1,)], within_seconds=30)
        worker.execute(f"LOCK TABLE finished_jobs_{day.name} IN ROW EXCLUSIVE MODE")
        eventually(pruning.done, within_seconds=30)

    assert pruning.result(60).counts["partitions_dropped"] == 0
    assert prune(store) == {"partitions_dropped": 2}


def test_a_drop_that_is_undone_in_a_deadlock_is_left_for_later(store: DrivenStore) -> None:
    add_day(store, LONG_AGO)
    add_ended(store, LONG_AGO)
    store.rows(
        "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected'; END $$"
    )
    store.rows("CREATE TRIGGER undo BEFORE DELETE ON retention_parts FOR EACH ROW EXECUTE FUNCTION undo()")

    assert prune(store) == {}
    store.rows("DROP TRIGGER undo ON retention_parts")
    assert prune(store) == {"partitions_dropped": 2}


def test_a_dead_job_that_is_replayed_is_not_forgotten(store: DrivenStore) -> None:
    add_day(store, LONG_AGO)
    (job_id,) = add_ended(store, LONG_AGO, state=State.DEAD)
    store.wait(store.services.replay(TENANT, [job_id]))

    prune(store, Policy(default_days=1))

    assert store.job(job_id).state is State.QUEUED
    assert len(store.ends(job_id)) == 1


def test_a_dead_letter_is_kept_as_long_as_its_job(store: DrivenStore) -> None:
    for tenant in ("acme", "globex"):
        store.end(death(store.running(a_job(tenant=tenant))))
    store.rows("UPDATE dead_letters SET created_at = now() - interval '100 days'")

    assert prune(store) == {"letters": 1}
    assert store.rows("SELECT tenant FROM dead_letters") == [("acme",)]


def test_a_letter_without_a_tenant_is_kept_by_the_default(store: DrivenStore) -> None:
    for days in (20, 40):
        store.rows(
            "INSERT INTO dead_letters (created_at, reason, queue) VALUES (%s, 'undecodable', 'q')", days_ago(days)
        )

    assert prune(store) == {"letters": 1}


def test_a_key_lives_as_long_as_it_was_promised(store: DrivenStore) -> None:
    accepted = store.accepted(a_job(key="import-7", fingerprint="f"))

    prune(store, Policy(default_days=1))

    assert store.rows("SELECT job_id FROM idempotency_keys") == [(accepted.id,)]


def test_a_day_that_has_been_looked_at_is_left_alone_until_something_is_due(store: DrivenStore) -> None:
    day = add_day(store, LONG_AGO)
    add_ended(store, LONG_AGO, FOLD_ROWS + 1, task="reports.daily")
    prune(store)

    ((look_at,),) = store.rows("SELECT look_at FROM retention_parts WHERE part = %s", day.name)
    assert look_at == day.begins + timedelta(days=366, hours=13)

    # A shorter policy is another reason to look.
    assert prune(store, Policy(default_days=30)) == {"partitions_dropped": 2}


def test_dispatchers_that_prune_at_once_forget_each_job_once(store: DrivenStore) -> None:
    day = TODAY - timedelta(days=20)
    add_day(store, day)
    kept = add_ended(store, day, FOLD_ROWS + 1, tenant="globex")
    add_ended(store, day, 300)
    add_ended(store, LONG_AGO, 10)

    done: Counter[str] = Counter()
    while True:
        rounds = [store.begin(store.services.prune(POLICY, 50)) for _ in range(4)]
        pruned = [each.result(60) for each in rounds]
        for each in pruned:
            done.update(each.counts)
        if not any(each.more for each in pruned):
            break

    assert (done["jobs"], done["attempts"]) == (310, 310)
    assert ended_ids(store) == set(kept)


def test_plain_celery_jobs_follow_the_policy_too(store: DrivenStore) -> None:
    young = new_job_id(Locator(region=0, shard=0))
    store.end(success(store.running(a_job(id=young))))
    old = add_ended(store, LONG_AGO, 3, task="reports.daily")  # Without a partition of their own.
    add_ended(store, LONG_AGO, 4)

    assert prune(store) == {"jobs": 4, "attempts": 4}
    assert ended_ids(store) == {young, *old}


def test_attempts_of_which_no_job_is_left_go_too(store: DrivenStore) -> None:
    add_ended(store, LONG_AGO, 2)
    store.rows("DELETE FROM finished_jobs")

    assert prune(store) == {"attempts": 2}
