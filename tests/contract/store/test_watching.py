"""What those who watch see: each count, and that the one which runs all the time stays cheap."""

from datetime import UTC, datetime, timedelta

import pytest

from taskplatform.job import Priority, State
from taskplatform.store.contract import QUEUE_FULL
from taskplatform.store.statements import statements
from taskplatform.store.watching import Crew, Crowd, Owed
from tests.fixtures.replica import Standby
from tests.fixtures.store import DrivenStore, a_job, a_lease, death, retry
from tests.fixtures.waiting import eventually


def _crowd(store: DrivenStore, state: State) -> Crowd:
    (found,) = [crowd for crowd in store.wait(store.services.census()) if crowd.state is state]
    return found


def test_the_census_counts_live_jobs_by_pool_state_and_gate(store: DrivenStore) -> None:
    store.accept(a_job(), a_job(), a_job(pool="gpu"))
    store.accept(a_job(state=State.BLOCKED, blocked_on=QUEUE_FULL))
    store.running()

    found = {(crowd.pool, crowd.state, crowd.gate): crowd.jobs for crowd in store.wait(store.services.census())}

    assert found == {
        ("default", State.QUEUED, ""): 2,
        ("gpu", State.QUEUED, ""): 1,
        ("default", State.BLOCKED, QUEUE_FULL): 1,
        ("default", State.RUNNING, ""): 1,
    }


def test_the_oldest_queued_job_is_as_old_as_its_queueing(store: DrivenStore) -> None:
    store.accept(a_job(), a_job())
    store.rows("UPDATE jobs SET queued_at = now() - interval '90 s' WHERE id = (SELECT max(id::text)::uuid FROM jobs)")

    assert 90 <= _crowd(store, State.QUEUED).oldest_seconds < 150


def test_a_due_job_that_is_held_back_has_waited_since_it_was_held(store: DrivenStore) -> None:
    due = datetime.now(UTC) - timedelta(seconds=1)
    store.accept(a_job(state=State.SCHEDULED, due_at=due))
    store.rows("UPDATE jobs SET created_at = now() - interval '1 day'")

    store.wait(store.services.hold_due([("default", Priority.NORMAL)], 10))

    assert _crowd(store, State.BLOCKED).oldest_seconds < 60


def test_an_overdue_job_is_as_late_as_its_time_is_past(store: DrivenStore) -> None:
    store.accept(a_job(state=State.SCHEDULED, due_at=datetime.now(UTC) - timedelta(seconds=40)))

    assert 40 <= _crowd(store, State.SCHEDULED).oldest_seconds < 100


def test_dead_letters_are_counted_until_they_are_replayed(store: DrivenStore) -> None:
    job = a_job()
    store.end(death(store.running(job)))
    before = store.wait(store.services.unreplayed_letters())

    store.wait(store.services.replay(job.tenant, [job.id]))

    assert before == {("jobs.default.dead", "attempts_exhausted"): 1}
    assert store.wait(store.services.unreplayed_letters()) == {}


def test_the_outbox_shows_how_much_waits_and_since_when(store: DrivenStore) -> None:
    store.accept(a_job(), a_job())
    store.rows("UPDATE outbox SET created_at = now() - interval '50 s'")

    found = store.wait(store.services.outbox_state())

    assert (found.rows, found.jobs) == (1, 2)
    assert 50 <= found.oldest_seconds < 110


def test_an_empty_outbox_is_no_age(store: DrivenStore) -> None:
    assert store.wait(store.services.outbox_state()).oldest_seconds == 0


def test_only_workers_whose_lease_holds_are_counted_with_what_they_have_fetched(store: DrivenStore) -> None:
    store.work.renew(a_lease("one"))
    store.work.renew(a_lease("two", seconds=0))

    assert store.wait(store.services.crews()) == [Crew(pool="default", draining=False, workers=1, slots=2, waiting=0)]


def test_jobs_in_the_outbox_are_those_that_still_want_their_message(store: DrivenStore) -> None:
    job = a_job()
    store.accept(job, a_job(), a_job(pool="gpu"))
    store.started(job)

    assert store.wait(store.services.in_outbox()) == {"default": 1, "gpu": 1}


def test_owed_are_queued_jobs_and_running_ones_whose_worker_has_no_lease(store: DrivenStore) -> None:
    store.work.renew(a_lease("alive"))
    store.running(worker="alive")
    store.running(worker="gone")
    store.accept(a_job())

    assert store.wait(store.services.owed(0.0)) == {"default": Owed(queued=1, running_without_lease=1)}
    assert store.wait(store.services.owed(60.0)) == {}


@pytest.mark.parametrize("ending", ["retrying", "rescued"])
def test_a_job_that_is_to_be_tried_again_is_not_among_the_queued_ones(store: DrivenStore, ending: str) -> None:
    claimed = store.running()
    if ending == "retrying":
        store.end(retry(claimed, 60))
    else:
        store.vanish()

    assert store.rows("SELECT state, queued_at FROM jobs") == [("retrying", None)]


def test_sessions_can_be_looked_at(store: DrivenStore) -> None:
    sessions = store.wait(store.services.sessions())

    assert sessions.by_state["active"] >= 1
    assert sessions.oldest_transaction_seconds >= 0


def test_a_standby_is_behind_by_what_it_has_not_replayed(store: DrivenStore, standby: Standby) -> None:
    def lags() -> list[int]:
        return [found.lag_bytes for found in store.wait(store.services.standbys())]

    with standby.held_up():
        store.accept(a_job())
        eventually(lambda: [lag > 0 for lag in lags()] == [True], within_seconds=20)

    eventually(lambda: lags() == [0], within_seconds=20)


def test_the_reconcilers_count_reads_no_job_that_waits_elsewhere(store: DrivenStore) -> None:
    store.accept(a_job())
    store.rows(
        "INSERT INTO jobs (id, tenant, task, pool, priority, state, blocked_on, max_attempts, body)"
        " SELECT gen_random_uuid(), 't', 'x', 'default', 'normal', 'blocked', 'queue_full', 1, '[[],{},{}]'"
        " FROM generate_series(1, 5000)"
    )
    store.rows("VACUUM ANALYZE jobs")

    plan = "\n".join(row[0] for row in store.rows("EXPLAIN " + statements()["owed"].replace("$1", "5")))

    assert "jobs_queued" in plan
