"""The autoscaler's side of the store: what it measures, the lease, and the decisions it keeps."""

import pytest
from msgspec.structs import replace

from taskplatform.autoscale.contract import LEASE, Choice
from taskplatform.autoscale.loop import recalled
from taskplatform.autoscale.policy import Memory, Rules, Sample, decide
from taskplatform.job import State
from taskplatform.store.contract import QUEUE_FULL
from tests.fixtures.store import DrivenStore, a_job, a_lease, give_back, retry, success

ME, YOU = "me", "you"


def a_choice(pool: str = "default", *, at: float = 1_000.0, ready: int = 0, seconds: float = 0.0) -> Choice:
    sample = Sample(at=at, ready=ready, ready_work_seconds=float(ready))
    return Choice(pool=pool, sample=sample, decision=decide(Rules(), sample, Memory())[0], worker_seconds=seconds)


def test_ready_and_running_jobs_are_measured_with_their_ages(store: DrivenStore) -> None:
    store.accept(a_job(), a_job(task="shop.bill"), a_job(state=State.BLOCKED, blocked_on=QUEUE_FULL))
    store.accept(a_job(state=State.BLOCKED, blocked_on="dependency"))
    store.running()
    store.rows("UPDATE jobs SET queued_at = now() - interval '40 s', started_at = started_at - interval '20 s'")
    store.rows("UPDATE jobs SET created_at = now() - interval '40 s'")

    loads = {load.task: load for load in store.wait(store.services.measure(15.0)).loads}

    assert (loads["shop.ship"].ready, loads["shop.ship"].running, loads["shop.bill"].ready) == (2, 1, 1)
    assert 40.0 <= loads["shop.bill"].oldest_age_seconds < 100.0
    assert 20.0 <= loads["shop.ship"].running_seconds < 80.0


def test_jobs_that_became_ready_lately_count_as_arrived_even_when_they_have_ended(store: DrivenStore) -> None:
    store.accept(a_job(), a_job())
    store.end(success(store.running()))
    store.accept(old := a_job())
    store.rows("UPDATE jobs SET queued_at = now() - interval '1 minute' WHERE id = %s", old.id)

    (load,) = store.wait(store.services.measure(15.0)).loads

    assert load.arrived == 3


def test_attempts_that_ended_tell_how_long_a_task_takes(store: DrivenStore) -> None:
    store.end(replace(success(store.running()), started=100.0, stopped=104.0))
    store.end(replace(retry(store.running()), started=100.0, stopped=102.0))
    store.end(give_back(store.running()))

    (history,) = store.wait(store.services.measure(15.0)).histories

    assert (history.ended, history.failed, history.seconds, history.longest_seconds) == (2, 1, 6.0, 4.0)


def test_workers_are_measured_with_what_they_run(store: DrivenStore) -> None:
    store.work.renew(a_lease("busy"))
    store.work.renew(a_lease("gone", seconds=0))
    store.running(worker="busy")
    store.running(worker="busy")

    (worker,) = store.wait(store.services.measure(15.0)).workers

    assert (worker.name, worker.slots, worker.running, worker.draining) == ("busy", 2, 2, False)


def test_a_lease_has_one_holder_until_it_lapses_or_is_given_up(store: DrivenStore) -> None:
    def hold(holder: str, seconds: float = 60.0) -> bool:
        return store.wait(store.services.hold_lease(LEASE, holder, seconds))

    assert (hold(ME), hold(YOU), hold(ME, 0.0)) == (True, False, True)
    assert (hold(YOU), hold(ME)) == (True, False)

    store.wait(store.services.yield_lease(LEASE, ME))
    assert not hold(ME)
    store.wait(store.services.yield_lease(LEASE, YOU))
    assert hold(ME)


def test_a_lease_is_kept_only_by_one_who_has_had_it_without_a_gap(store: DrivenStore) -> None:
    def keep(holder: str) -> bool:
        return store.wait(store.services.keep_lease(LEASE, holder, 60.0))

    store.wait(store.services.hold_lease(LEASE, ME, 60.0))
    held = keep(ME), keep(YOU)
    store.wait(store.services.hold_lease(LEASE, ME, 0.0))

    assert held == (True, False)
    assert (keep(ME), keep(YOU)) == (False, False)


@pytest.mark.parametrize("held", [True, False], ids=["the holder", "one that lost the lease"])
def test_only_the_holder_of_the_lease_may_decide(store: DrivenStore, held: bool) -> None:
    store.wait(store.services.hold_lease(LEASE, ME if held else YOU, 60.0))

    recorded = store.wait(store.services.record_decisions(ME, [a_choice(seconds=1800.0), a_choice("gpu")]))

    assert recorded is held
    assert [one.pool for one in store.wait(store.services.newest_decisions())] == (["default", "gpu"] if held else [])
    assert store.wait(store.services.measure(15.0)).used_hours == ({"default": 0.5, "gpu": 0.0} if held else {})


def test_decisions_are_kept_with_what_they_followed_from_the_newest_first(store: DrivenStore) -> None:
    store.wait(store.services.hold_lease(LEASE, ME, 60.0))
    for ready in (10, 200):
        store.wait(store.services.record_decisions(ME, [a_choice(ready=ready)]))

    newest, before = store.wait(store.services.decisions("default", 5))

    assert (newest.facts["ready"], before.facts["ready"]) == (200, 10)
    assert (newest.desired, newest.reason, newest.facts["needed"]) == (4, "surge", 7)
    assert store.wait(store.services.decisions("default", 5, since=newest.at)) == [newest]
    assert store.wait(store.services.newest_decisions()) == [newest]


def test_the_next_autoscaler_remembers_what_the_one_before_recommended(store: DrivenStore) -> None:
    store.wait(store.services.hold_lease(LEASE, ME, 60.0))
    for ready in (200, 0):
        store.wait(store.services.record_decisions(ME, [a_choice(ready=ready)]))
    newest, before = records = store.wait(store.services.decisions("default", 5))

    memory = recalled(records, 60.0)

    assert memory.busy_at == before.at.timestamp()
    assert memory.recommended == ((before.at.timestamp(), 7), (newest.at.timestamp(), 1))


def test_old_decisions_are_forgotten(store: DrivenStore) -> None:
    store.wait(store.services.hold_lease(LEASE, ME, 60.0))
    for _ in range(2):
        store.wait(store.services.record_decisions(ME, [a_choice()]))
    store.rows("UPDATE scale_decisions SET at = at - interval '8 days' WHERE id = 1")

    assert store.wait(store.services.prune_decisions(7.0, 100)) == 1
    assert len(store.wait(store.services.decisions("default", 5))) == 1
