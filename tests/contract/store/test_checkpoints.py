from taskplatform.job import State
from tests.fixtures.store import DrivenStore, a_job, death, retry, success


def test_a_checkpoint_outlives_its_attempt(store: DrivenStore) -> None:
    job = a_job()
    first = store.running(job)
    assert store.work.load_checkpoints([(job.id, 1)]) == {(job.id, 1): None}
    assert store.work.save_checkpoints({(job.id, 1): '{"page":3}'}) == {(job.id, 1)}
    store.end(retry(first))
    store.wait(store.services.release_due(10))

    second = store.started(job)

    running = (job.id, second.attempt)
    assert store.work.load_checkpoints([running]) == {running: '{"page":3}'}


def test_an_attempt_that_lost_its_job_keeps_nothing_and_reads_nothing(store: DrivenStore) -> None:
    job, other = a_job(), a_job()
    stale = store.running(job)
    store.vanish()
    store.wait(store.services.release_due(10))
    current = store.started(job, worker="worker-2")
    alone = store.running(other)
    saved = {(claimed.id, claimed.attempt): f'"{claimed.attempt}"' for claimed in (stale, current, alone)}

    kept = store.work.save_checkpoints(saved)

    assert kept == {(job.id, 2), (other.id, 1)}
    assert store.work.load_checkpoints(saved) == {(job.id, 2): '"2"', (other.id, 1): '"1"'}


def test_a_checkpoint_is_gone_when_its_job_has_ended_and_when_it_is_replayed(store: DrivenStore) -> None:
    for ending in (success, death):
        job = a_job()
        claimed = store.running(job)
        store.work.save_checkpoints({(job.id, 1): "7"})
        store.end(ending(claimed))
        assert store.work.save_checkpoints({(job.id, 1): "8"}) == set()
        assert store.work.load_checkpoints([(job.id, 1)]) == {}
        if store.job(job.id).state is State.DEAD:
            store.wait(store.services.replay(job.tenant, [job.id]))
            again = store.started(job, series=1)
            assert store.work.load_checkpoints([(job.id, again.attempt)]) == {(job.id, 2): None}


def test_without_attempts_nothing_is_asked(store: DrivenStore) -> None:
    assert store.work.save_checkpoints({}) == set()
    assert store.work.load_checkpoints([]) == {}
