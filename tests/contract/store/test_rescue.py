import pytest

from taskplatform.job import AttemptEnd, NewJob, Reason, State
from taskplatform.store.contract import LetterFilter
from tests.fixtures.store import TENANT, WORKER, DrivenStore, a_job, a_lease, success


def start_again(store: DrivenStore, job: NewJob) -> None:
    store.wait(store.services.release_due(10))
    store.started(job)


def test_a_job_whose_worker_vanished_becomes_a_suspect_and_is_charged_nothing(store: DrivenStore) -> None:
    job = a_job()
    store.running(job)

    rescued = store.vanish()

    assert rescued == {job.id: State.RETRYING}
    assert store.rows("SELECT suspect, crashes, failures FROM jobs") == [(True, 0, 0)]
    assert store.ends(job.id) == [AttemptEnd.LOST]


def test_a_suspect_whose_worker_vanished_is_charged_a_crash(store: DrivenStore) -> None:
    job = a_job()
    store.running(job)
    store.vanish()
    start_again(store, job)

    store.vanish()

    assert store.rows("SELECT suspect, crashes, failures FROM jobs") == [(True, 1, 0)]
    assert store.ends(job.id) == [AttemptEnd.LOST, AttemptEnd.CRASHED]


def test_a_suspect_that_crashed_too_often_is_dead_poison(store: DrivenStore) -> None:
    job = a_job()
    store.running(job)
    store.vanish(crash_limit=2)
    start_again(store, job)
    store.vanish(crash_limit=2)
    start_again(store, job)

    rescued = store.vanish(crash_limit=2)

    assert rescued == {job.id: State.DEAD}
    assert store.job(job.id).reason == Reason.POISON
    assert store.ends(job.id) == [AttemptEnd.LOST, AttemptEnd.CRASHED, AttemptEnd.CRASHED]
    (letter,) = store.wait(store.services.letters(LetterFilter(tenant=TENANT), 10))
    assert (letter.reason, letter.job_id) == (Reason.POISON, job.id)


def test_the_jobs_of_living_workers_are_left_alone(store: DrivenStore) -> None:
    mine, other = a_job(), a_job()
    store.running(mine, worker="worker-1")
    store.running(other, worker="worker-2")
    store.work.renew(a_lease("worker-2"))

    assert set(store.vanish("worker-1")) == {mine.id}


def test_a_vanished_worker_is_forgotten(store: DrivenStore) -> None:
    store.vanish()

    assert store.rows("SELECT id FROM workers") == []


def test_what_a_worker_without_a_lease_runs_is_taken_back(store: DrivenStore) -> None:
    claimed = store.running()

    (rescued,) = store.wait(store.services.rescue(3))
    assert (rescued.id, rescued.state) == (claimed.id, State.RETRYING)


def test_rescuers_at_once_rescue_each_job_once(store: DrivenStore) -> None:
    jobs = [a_job() for _ in range(20)]
    for job in jobs:
        store.running(job)
    store.work.renew(a_lease(seconds=0))

    rescues = [store.begin(store.services.rescue(3)) for _ in range(6)]

    assert sorted(job.id for rescue in rescues for job in rescue.result(60)) == sorted(job.id for job in jobs)
    assert store.rows("SELECT count(*) FROM attempts") == [(20,)]


@pytest.mark.parametrize("worker", [WORKER, "worker-2"])
def test_a_rescued_job_runs_again_wherever_it_is_claimed(store: DrivenStore, worker: str) -> None:
    job = a_job()
    store.running(job)
    store.vanish()
    store.wait(store.services.release_due(10))

    again = store.started(job, worker=worker)

    assert (again.attempt, again.suspect) == (2, True)
    assert store.end(success(again)) == {job.id}
