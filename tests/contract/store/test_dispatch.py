import asyncio
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event
from uuid import UUID, uuid4

import pytest

from taskplatform.errors import BrokerUnavailable
from taskplatform.job import AttemptEnd, NewJob, Priority, Reason, State
from taskplatform.store.contract import QUEUE_FULL, BuriedMessage, LetterFilter, Release
from tests.fixtures.store import TENANT, DrivenStore, a_job, death, ids, retry, success

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=1)


def scheduled(due_at: datetime = NOW) -> NewJob:
    return a_job(state=State.SCHEDULED, due_at=due_at)


def blocked(**changes: object) -> NewJob:
    return a_job(state=State.BLOCKED, blocked_on="queue_full", **changes)


def released(releases: Sequence[Release]) -> list[UUID]:
    return [release.envelope.id for release in releases]


def a_message(job: NewJob | None = None, *, series: int | None = 0, job_id: UUID | None = None) -> BuriedMessage:
    return BuriedMessage(
        reason=Reason.DELIVERY_LIMIT,
        queue="jobs.default.normal",
        detail="handed out too often",
        headers="{}",
        raw=b"\x00\xff'\\",
        tenant=TENANT,
        job_id=job.id if job else job_id,
        series=series,
    )


class Broker:
    """Confirms what it is told to."""

    def __init__(self, confirmed: Collection[UUID] | None = None) -> None:
        self.confirmed = confirmed
        self.got: list[UUID] = []

    async def publish(self, releases: Sequence[Release]) -> Collection[UUID]:
        """Take messages."""
        self.got += released(releases)
        return self.got if self.confirmed is None else self.confirmed


def relay(store: DrivenStore, broker: Broker) -> int:
    return store.wait(store.services.relay(0, 100, broker.publish))


def test_due_jobs_are_queued_with_one_outbox_row(store: DrivenStore) -> None:
    due = [scheduled(), scheduled()]
    store.accept(*due, scheduled(LATER))

    releases = store.wait(store.services.release_due(10))

    assert set(released(releases)) == set(ids(due))
    ((row,),) = store.rows("SELECT id FROM outbox")
    assert {release.outbox_id for release in releases} == {row}
    assert [store.job(job.id).state for job in due] == [State.QUEUED] * 2


def test_a_release_carries_all_that_the_message_needs(store: DrivenStore) -> None:
    job = a_job(
        state=State.SCHEDULED,
        due_at=NOW,
        priority=Priority.HIGH,
        soft_limit_seconds=1.5,
        hard_limit_seconds=2.5,
        trace="00-1-2-01",
    )
    store.accepted(job)

    (release,) = store.wait(store.services.release_due(10))

    envelope = release.envelope
    assert (envelope.id, envelope.task, envelope.body, envelope.tenant) == (job.id, job.task, job.body, TENANT)
    assert (envelope.pool, envelope.priority, envelope.series, envelope.suspect) == ("default", Priority.HIGH, 0, False)
    assert (envelope.soft_limit_seconds, envelope.hard_limit_seconds, envelope.trace) == (1.5, 2.5, "00-1-2-01")


def test_a_retry_is_released_when_its_wait_is_over(store: DrivenStore) -> None:
    soon, late = store.running(), store.running()
    store.end(retry(soon), retry(late, wait_seconds=3600))

    assert released(store.wait(store.services.release_due(10))) == [soon.id]


def test_no_more_jobs_are_released_than_wanted(store: DrivenStore) -> None:
    store.accept(*[scheduled() for _ in range(5)])

    assert len(store.wait(store.services.release_due(3))) == 3


def test_dispatchers_at_once_never_release_the_same_job(store: DrivenStore) -> None:
    jobs = [scheduled() for _ in range(300)]
    store.accept(*jobs)

    calls = [store.begin(store.services.release_due(20)) for _ in range(40)]

    got = [job_id for call in calls for job_id in released(call.result(60))]
    assert len(got) == len(set(got))
    assert len(got) + len(store.wait(store.services.release_due(300))) == 300


def test_the_time_to_the_next_due_job_is_told(store: DrivenStore) -> None:
    assert store.wait(store.services.seconds_to_next_due()) is None
    store.accepted(scheduled(datetime.now(UTC) + timedelta(days=1)))

    seconds = store.wait(store.services.seconds_to_next_due())

    assert seconds is not None
    assert 80_000 < seconds < 86_401


def test_due_jobs_of_a_full_queue_wait_for_room(store: DrivenStore) -> None:
    high, normal, later = (
        a_job(state=State.SCHEDULED, due_at=NOW, priority=Priority.HIGH),
        scheduled(),
        scheduled(LATER),
    )
    store.accept(high, normal, later)

    held = store.wait(store.services.hold_due([("default", Priority.NORMAL), ("mail", Priority.HIGH)], 10))

    assert held == 1
    assert (store.job(normal.id).state, store.job(normal.id).blocked_on) == (State.BLOCKED, QUEUE_FULL)
    assert (store.job(high.id).state, store.job(later.id).state) == (State.SCHEDULED, State.SCHEDULED)
    assert released(store.wait(store.services.release_blocked("default", Priority.NORMAL, 10))) == [normal.id]


def test_due_jobs_behind_those_of_a_full_queue_are_queued(store: DrivenStore) -> None:
    high = a_job(state=State.SCHEDULED, due_at=NOW, priority=Priority.HIGH)
    store.accept(*[scheduled() for _ in range(5)], high)

    releases = store.wait(store.services.release_due(3, [("default", Priority.NORMAL)]))

    assert released(releases) == [high.id]


def test_a_retry_whose_queue_is_full_waits_for_room(store: DrivenStore) -> None:
    claimed = store.running()
    store.end(retry(claimed))

    assert store.wait(store.services.hold_due([("default", Priority.NORMAL)], 10)) == 1
    assert store.wait(store.services.release_due(10)) == []


def test_the_oldest_jobs_that_wait_for_room_are_queued_first(store: DrivenStore) -> None:
    jobs = [blocked() for _ in range(4)]
    store.accept(*reversed(jobs))

    releases = store.wait(store.services.release_blocked("default", Priority.NORMAL, 2))

    assert set(released(releases)) == set(sorted(ids(jobs))[:2])
    assert store.job(min(ids(jobs))).blocked_on is None


def test_only_queues_with_waiting_jobs_are_named(store: DrivenStore) -> None:
    store.accept(blocked(priority=Priority.HIGH), blocked(pool="mail"), blocked(pool="other"))

    waiting = store.wait(store.services.blocked_queues(["default", "mail"]))

    assert sorted(waiting) == [("default", Priority.HIGH), ("mail", Priority.NORMAL)]


def test_a_due_or_blocked_job_that_was_cancelled_is_not_released(store: DrivenStore) -> None:
    jobs = [scheduled(), blocked()]
    store.accept(*jobs)
    store.wait(store.services.cancel(TENANT, ids(jobs)))

    assert store.wait(store.services.release_due(10)) == []
    assert store.wait(store.services.release_blocked("default", Priority.NORMAL, 10)) == []


def test_the_relay_publishes_what_nobody_settled_and_forgets_it(store: DrivenStore) -> None:
    jobs = [a_job(), a_job()]
    store.accept(*jobs)
    broker = Broker()

    rows = relay(store, broker)

    assert (rows, set(broker.got)) == (1, set(ids(jobs)))
    assert relay(store, Broker()) == 0


def test_the_relay_leaves_young_rows_to_their_publisher(store: DrivenStore) -> None:
    store.accepted(a_job())
    broker = Broker()

    rows = store.wait(store.services.relay(60, 100, broker.publish))

    assert (rows, broker.got) == (0, [])


def test_a_row_with_an_unconfirmed_message_is_relayed_again(store: DrivenStore) -> None:
    jobs = [a_job(), a_job()]
    store.accept(*jobs)
    relay(store, Broker(confirmed=[jobs[0].id]))
    broker = Broker()

    assert relay(store, broker) == 1
    assert broker.got == [jobs[1].id]


def test_rows_that_cannot_be_relayed_hold_up_no_other(store: DrivenStore) -> None:
    stuck = [store.accepted(a_job()).id for _ in range(3)]
    (*_, good) = [store.accepted(a_job()).id for _ in range(2)]
    broker = Broker()

    async def unroutable(releases: Sequence[Release]) -> Collection[UUID]:
        confirmed = set(await broker.publish(releases)) - set(stuck)
        if not confirmed:
            raise BrokerUnavailable("none was confirmed")
        return confirmed

    with pytest.raises(BrokerUnavailable):
        store.wait(store.services.relay(0, 3, unroutable))
    store.wait(store.services.relay(0, 3, unroutable))

    assert good in broker.got


def test_a_relay_that_fails_only_repeats_messages(store: DrivenStore) -> None:
    job = a_job()
    store.accepted(job)

    async def broken(releases: Sequence[Release]) -> Collection[UUID]:
        raise BrokerUnavailable("gone")

    with pytest.raises(BrokerUnavailable):
        store.wait(store.services.relay(0, 100, broken))
    broker = Broker()
    relay(store, broker)

    assert broker.got == [job.id]


def test_jobs_that_run_or_ended_already_are_not_relayed(store: DrivenStore) -> None:
    running, ended = a_job(), a_job()
    store.accept(running, ended)
    store.started(running)
    store.end(success(store.started(ended)))
    broker = Broker()

    assert (relay(store, broker), broker.got) == (1, [])


def test_an_outbox_row_that_a_relay_holds_does_not_hold_up_a_new_batch(store: DrivenStore) -> None:
    first = store.accepted(a_job())
    held, let_go = Event(), Event()

    async def slow(releases: Sequence[Release]) -> Collection[UUID]:
        held.set()
        await asyncio.to_thread(let_go.wait, 30)
        return released(releases)

    relaying = store.begin(store.services.relay(0, 100, slow))
    assert held.wait(30)
    assert first.outbox_id is not None
    store.wait(store.services.accept([a_job()], settled=[first.outbox_id]))
    let_go.set()

    assert relaying.result(60) == 1


def test_jobs_queued_for_long_are_found_until_they_are_touched(store: DrivenStore) -> None:
    old, young = a_job(), a_job()
    store.accept(old, young, a_job(pool="mail"))
    store.rows("UPDATE jobs SET queued_at = now() - interval '1 hour' WHERE id <> %s", young.id)

    stranded = released(store.wait(store.services.stranded("default", Priority.NORMAL, 60, 10)))
    store.wait(store.services.touch(stranded))

    assert stranded == [old.id]
    assert store.wait(store.services.stranded("default", Priority.NORMAL, 60, 10)) == []


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED, State.BLOCKED])
def test_a_job_that_missed_its_deadline_expires(store: DrivenStore, state: State) -> None:
    gates = {"due_at": LATER} if state is State.SCHEDULED else {"blocked_on": "x"} if state is State.BLOCKED else {}
    job = a_job(state=state, expires_at=NOW - timedelta(seconds=1), **gates)
    store.accept(job, a_job(expires_at=LATER))

    assert store.wait(store.services.expire(10)) == 1
    assert store.job(job.id).state is State.EXPIRED


def test_a_running_job_may_run_past_its_deadline(store: DrivenStore) -> None:
    job = a_job(expires_at=LATER)
    store.running(job)
    store.rows("UPDATE jobs SET expires_at = now() - interval '1 second'")

    assert store.wait(store.services.expire(10)) == 0
    assert store.job(job.id).state is State.RUNNING


def test_a_buried_message_of_a_queued_job_makes_the_job_dead(store: DrivenStore) -> None:
    job = a_job()
    store.accepted(job)

    store.wait(store.services.bury([a_message(job)]))
    store.wait(store.services.bury([a_message(job)]))

    dead = store.job(job.id)
    assert (dead.state, dead.reason) == (State.DEAD, Reason.DELIVERY_LIMIT)
    (letter,) = store.wait(store.services.letters(LetterFilter(tenant=TENANT), 10))
    whole = store.wait(store.services.letter(letter.id))
    assert whole is not None
    assert (whole.job_id, whole.raw, letter.raw) == (job.id, b"\x00\xff'\\", None)


def test_a_late_message_does_not_bury_a_running_job(store: DrivenStore) -> None:
    job = a_job()
    store.running(job)

    store.wait(store.services.bury([a_message(job)]))

    assert store.job(job.id).state is State.RUNNING
    assert store.wait(store.services.letters(LetterFilter(tenant=None), 10)) == []


def test_a_message_of_an_earlier_series_does_not_bury_a_replayed_job(store: DrivenStore) -> None:
    job = a_job()
    store.end(death(store.running(job)))
    store.wait(store.services.replay(TENANT, [job.id]))

    store.wait(store.services.bury([a_message(job, series=0)]))

    assert store.job(job.id).state is State.QUEUED


@pytest.mark.parametrize("job_id", [None, uuid4()])
def test_a_message_without_a_job_is_kept_as_it_is(store: DrivenStore, job_id: UUID | None) -> None:
    store.wait(store.services.bury([a_message(job_id=job_id, series=None)]))

    (letter,) = store.wait(store.services.letters(LetterFilter(tenant=None), 10))
    assert (letter.job_id, letter.detail) == (job_id, "handed out too often")


def test_a_buried_job_can_be_replayed(store: DrivenStore) -> None:
    job = a_job()
    store.accepted(job)
    store.wait(store.services.bury([a_message(job)]))

    (release,) = store.wait(store.services.replay(TENANT, [job.id]))
    store.end(success(store.started(job, series=1)))

    assert release.envelope.series == 1
    assert store.ends(job.id) == [AttemptEnd.SUCCEEDED]


def test_a_waiting_dispatcher_is_woken_by_a_job_that_is_due(store: DrivenStore) -> None:
    store.wait(store.services.wait_for_due(5))
    waiting = store.begin(store.services.wait_for_due(3600))
    assert not waiting.done()

    store.end(retry(store.running()))

    waiting.result(30)


def test_a_wait_for_what_is_due_ends_after_its_timeout(store: DrivenStore) -> None:
    store.wait(store.services.wait_for_due(5))

    store.wait(store.services.wait_for_due(0.01))
