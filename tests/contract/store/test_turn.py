from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from msgspec.structs import replace

from taskplatform.errors import InvalidInput
from taskplatform.job import AttemptEnd, Envelope, Reason, State
from taskplatform.store.contract import LetterFilter
from taskplatform.store.postgres.work import PostgresWorkStore
from taskplatform.store.working import ClaimRequest
from taskplatform.task import Announced, TaskSpec
from tests.fixtures.store import (
    TENANT,
    WORKER,
    DrivenStore,
    a_job,
    a_lease,
    death,
    give_back,
    ids,
    retry,
    success,
)


def test_a_claimed_job_runs_its_first_attempt(store: DrivenStore) -> None:
    job = a_job()

    claimed = store.running(job)

    assert (claimed.attempt, claimed.failures, claimed.crashes, claimed.suspect) == (1, 0, 0, False)
    assert store.job(job.id).state is State.RUNNING
    assert store.ends(job.id) == [None]


def test_a_job_that_another_worker_runs_cannot_be_claimed(store: DrivenStore) -> None:
    job = a_job()
    store.running(job, worker="worker-1")

    assert store.start(job, worker="worker-2") is None


def test_two_workers_that_claim_at_once_never_get_the_same_job(store: DrivenStore) -> None:
    jobs = [a_job() for _ in range(200)]
    store.accept(*jobs)

    def claim(worker: str) -> set[object]:
        with PostgresWorkStore(store.dsn) as work:
            got: set[object] = set()
            for start in range(0, 200, 20):
                wanted = [(job.id, 0) for job in jobs[start : start + 20]]
                _, claimed = work.turn([], ClaimRequest(worker=worker, token=str(start), wanted=wanted))
                got.update(one.id for one in claimed)
            return got

    with ThreadPoolExecutor(4) as threads:
        shares = list(threads.map(claim, ["a", "b", "c", "d"]))

    assert sum(len(share) for share in shares) == len(set().union(*shares)) == 200


def test_the_same_claim_again_gives_the_same_attempt(store: DrivenStore) -> None:
    job = a_job()
    first = store.running(job, token="turn-1")

    assert store.start(job, token="turn-1") == first


def test_another_claim_of_the_same_worker_does_not_start_a_running_job_again(store: DrivenStore) -> None:
    job = a_job()
    store.running(job, token="turn-1")

    assert store.start(job, token="turn-2") is None


def test_a_job_past_its_deadline_does_not_start(store: DrivenStore) -> None:
    job = a_job(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    store.accepted(job)

    assert store.start(job) is None


def test_a_cancelled_job_does_not_start(store: DrivenStore) -> None:
    job = a_job()
    store.accepted(job)
    store.wait(store.services.cancel(TENANT, [job.id]))

    assert store.start(job) is None


def test_a_message_of_an_earlier_series_does_not_start_a_replayed_job(store: DrivenStore) -> None:
    job = a_job()
    store.end(death(store.running(job)))
    store.wait(store.services.replay(TENANT, [job.id]))

    assert store.start(job, series=0) is None
    assert store.start(job, series=1) is not None


@pytest.mark.parametrize("state", [State.SCHEDULED, State.BLOCKED])
def test_a_job_whose_gate_is_closed_does_not_start(store: DrivenStore, state: State) -> None:
    job = a_job(state=state, due_at=datetime.now(UTC), blocked_on="queue_full")
    store.accepted(job)

    assert store.start(job) is None


def test_a_succeeded_job_keeps_its_result_and_its_attempt(store: DrivenStore) -> None:
    job = a_job()
    claimed = store.running(job)

    recorded = store.end(success(claimed, '{"ok":true}'))

    done = store.job(job.id)
    assert recorded == {job.id}
    assert (done.state, done.result, done.error, done.attempt) == (State.SUCCEEDED, '{"ok":true}', None, 1)
    assert store.ends(job.id) == [AttemptEnd.SUCCEEDED]


def test_a_job_ends_no_earlier_than_it_was_created_by_whichever_clock(store: DrivenStore) -> None:
    claimed = store.running()

    store.end(replace(success(claimed), started=1.0, stopped=2.0))

    job = store.job(claimed.id)
    assert job.ended_at == job.created_at


def test_finishing_twice_records_one_result(store: DrivenStore) -> None:
    claimed = store.running()
    store.end(success(claimed, "1"))

    again = store.end(success(claimed, "2"))

    assert again == set()
    assert store.job(claimed.id).result == "1"
    assert store.ends(claimed.id) == [AttemptEnd.SUCCEEDED]


def test_an_attempt_that_lost_its_job_records_nothing(store: DrivenStore) -> None:
    job = a_job()
    stale = store.running(job)
    store.vanish()
    store.wait(store.services.release_due(10))
    current = store.started(job, worker="worker-2")

    recorded = store.end(success(stale), retry(stale), give_back(stale))

    assert recorded == set()
    assert current.attempt == stale.attempt + 1
    assert store.job(job.id).state is State.RUNNING
    assert store.ends(job.id) == [AttemptEnd.LOST, None]


def test_a_dead_job_leaves_one_dead_letter(store: DrivenStore) -> None:
    claimed = store.running()

    store.end(death(claimed))
    store.end(death(claimed))

    job = store.job(claimed.id)
    assert (job.state, job.reason, job.failures) == (State.DEAD, Reason.ATTEMPTS_EXHAUSTED, 1)
    (letter,) = store.wait(store.services.letters(LetterFilter(tenant=TENANT), 10))
    assert (letter.job_id, letter.reason, letter.queue) == (job.id, "attempts_exhausted", "jobs.default.dead")


def test_a_failed_attempt_is_charged_and_its_job_waits(store: DrivenStore) -> None:
    claimed = store.running()

    store.end(retry(claimed, wait_seconds=3600))

    job = store.job(claimed.id)
    assert (job.state, job.failures, job.attempt) == (State.RETRYING, 1, 1)
    assert job.due_at is not None
    assert timedelta(minutes=59) < job.due_at - datetime.now(UTC) < timedelta(minutes=61)
    assert store.ends(job.id) == [AttemptEnd.FAILED]


def test_a_crashed_attempt_makes_its_job_a_suspect(store: DrivenStore) -> None:
    job = a_job()
    store.end(retry(store.running(job), crashed=1))
    (release,) = store.wait(store.services.release_due(10))

    again = store.started(job)

    assert release.envelope.suspect
    assert (again.failures, again.crashes, again.suspect) == (0, 1, True)


def test_a_job_given_back_is_due_at_once_and_charged_nothing(store: DrivenStore) -> None:
    job = a_job()
    store.end(give_back(store.running(job)))

    store.wait(store.services.release_due(10))
    again = store.started(job)

    assert (again.attempt, again.failures, again.crashes, again.suspect) == (2, 0, 0, False)
    assert store.ends(job.id) == [AttemptEnd.RELEASED, None]


def test_endings_and_a_claim_share_a_turn(store: DrivenStore) -> None:
    done, failed, unstarted = store.running(), store.running(), store.running()
    fresh = [a_job(), a_job()]
    store.accept(*fresh)

    recorded, claimed = store.work.turn(
        [success(done), retry(failed), give_back(unstarted)],
        ClaimRequest(worker=WORKER, token="t", wanted=[(job.id, 0) for job in fresh]),
    )

    assert recorded == {done.id, failed.id, unstarted.id}
    assert {one.id for one in claimed} == set(ids(fresh))


def test_a_turn_with_a_value_that_postgres_refuses_changes_nothing(store: DrivenStore) -> None:
    good, bad = store.running(), store.running()

    with pytest.raises(InvalidInput):
        store.end(success(good), replace(retry(bad), error="\0"))

    assert store.job(good.id).state is State.RUNNING


def test_the_same_turn_again_gives_the_same_attempts(store: DrivenStore) -> None:
    done = store.running()
    fresh = a_job()
    store.accepted(fresh)
    request = ClaimRequest(worker=WORKER, token="t", wanted=[(fresh.id, 0)])
    _, first = store.work.turn([success(done)], request)

    recorded, again = store.work.turn([success(done)], request)

    assert (recorded, again) == (set(), first)


def test_a_celery_message_without_a_row_gets_one_when_it_is_claimed(store: DrivenStore) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    bare = Envelope(id=uuid4(), task="shop.ship", body="[[],{},{}]", tenant=TENANT, pool="default", series=None)
    message = replace(bare, trace=trace)
    request = ClaimRequest(worker=WORKER, token="t", wanted=[(message.id, -1)], adopt=[(message, 4)])

    _, (claimed,) = store.work.turn([], request)

    assert (claimed.attempt, claimed.max_attempts) == (1, 4)
    assert store.job(message.id).state is State.RUNNING
    assert store.rows("SELECT trace FROM jobs") == [(trace,)]


def test_a_celery_message_that_ran_before_is_not_adopted_again(store: DrivenStore) -> None:
    message = Envelope(id=uuid4(), task="shop.ship", body="[[],{},{}]", tenant=TENANT, pool="default", series=None)
    wanted, adopt = [(message.id, -1)], [(message, 4)]
    _, (claimed,) = store.work.turn([], ClaimRequest(worker=WORKER, token="t", wanted=wanted, adopt=adopt))
    store.end(success(claimed))

    _, again = store.work.turn([], ClaimRequest(worker=WORKER, token="u", wanted=wanted, adopt=adopt))

    assert again == []
    assert store.job(message.id).state is State.SUCCEEDED


def test_attempts_that_lost_their_job_are_told(store: DrivenStore) -> None:
    kept, cancelled, finished = store.running(), store.running(), store.running()
    store.wait(store.services.cancel(TENANT, [cancelled.id]))
    store.end(success(finished))

    lost = store.work.lost([(one.id, one.attempt) for one in (kept, cancelled, finished)])

    assert lost == {cancelled.id, finished.id}


def test_a_renewed_lease_keeps_its_jobs(store: DrivenStore) -> None:
    claimed = store.running()
    store.work.renew(a_lease(seconds=0))
    store.work.renew(a_lease(seconds=60))

    assert store.wait(store.services.rescue(3)) == []
    assert store.job(claimed.id).state is State.RUNNING


def test_a_lease_given_up_is_gone(store: DrivenStore) -> None:
    store.work.renew(a_lease())

    store.work.end_lease(WORKER)

    assert store.rows("SELECT id FROM workers") == []


def test_the_newest_announcement_of_a_task_wins(store: DrivenStore) -> None:
    store.work.announce([TaskSpec(name="shop.ship"), TaskSpec(name="shop.pack")])
    newest = TaskSpec(name="shop.ship", max_attempts=2, schema={"type": "object"}, positional=("order",))

    store.wait(store.services.announce([newest]))

    known = store.wait(store.services.tasks())
    assert known == {"shop.ship": Announced(spec=newest), "shop.pack": Announced(spec=TaskSpec(name="shop.pack"))}


def test_a_job_that_has_ended_cannot_be_changed_by_anybody(store: DrivenStore) -> None:
    store.end(success(store.running()))

    with pytest.raises(psycopg.errors.RestrictViolation, match="has ended as succeeded and cannot change"):
        store.rows("UPDATE finished_jobs SET result = '2'")
