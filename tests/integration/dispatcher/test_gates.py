"""Gates open when they should, once, and for every job behind them."""

from __future__ import annotations

from threading import Event

import pytest

from taskplatform.errors import BrokerUnavailable
from taskplatform.job import State
from taskplatform.store.postgres.store import PostgresStore
from tests.fixtures.broker import a_message
from tests.fixtures.waiting import eventually
from tests.integration.dispatcher.conftest import QUEUE, Stage


def test_due_jobs_are_queued_and_reach_the_broker_once(stage: Stage) -> None:
    jobs = stage.accept_due(1200)

    stage.play(stage.dispatcher())

    assert sorted(stage.delivered()) == sorted(job.id for job in jobs)


def test_a_confirmed_batch_leaves_nothing_in_the_outbox(stage: Stage) -> None:
    stage.accept_due(10)

    stage.play(stage.dispatcher())

    assert stage.outbox_rows() == 0


def test_a_job_is_not_released_before_its_time_by_the_clock_of_the_database(stage: Stage) -> None:
    due = stage.database_time(later_seconds=1.0)
    (job,) = stage.accept(state=State.SCHEDULED, due_at=due)

    with stage.playing(stage.dispatcher()):
        stage.delivers([job])

    ((queued_at,),) = stage.store.rows("SELECT queued_at FROM jobs")
    assert queued_at >= due


def test_a_job_that_becomes_due_soon_does_not_wait_for_the_poll(rabbit_stage: Stage) -> None:
    dispatcher = rabbit_stage.dispatcher()
    dispatcher.pause_seconds = 60.0
    (job,) = rabbit_stage.accept(state=State.SCHEDULED, due_at=rabbit_stage.database_time(later_seconds=1.0))

    with rabbit_stage.playing(dispatcher):
        delivered = rabbit_stage.delivers([job], within_seconds=30)

    assert delivered == [job.id]


def test_a_notification_wakes_a_dispatcher_that_rests(rabbit_stage: Stage) -> None:
    dispatcher = rabbit_stage.dispatcher()
    dispatcher.pause_seconds = 60.0
    rested = Event()
    dispatcher.after_round = rested.set

    with rabbit_stage.playing(dispatcher):
        assert rested.wait(30)
        (job,) = rabbit_stage.accept_due()
        delivered = rabbit_stage.delivers([job], within_seconds=30)

    assert delivered == [job.id]


def test_two_dispatchers_release_each_due_job_once(rabbit_stage: Stage) -> None:
    jobs = rabbit_stage.accept_due(2000)
    other = PostgresStore(rabbit_stage.store.dsn)
    first = rabbit_stage.dispatcher(dispatch_batch_jobs=50)
    second = rabbit_stage.dispatcher(other, dispatch_batch_jobs=50)

    with rabbit_stage.playing(first, second):
        delivered = rabbit_stage.delivers(jobs)
    rabbit_stage.store.wait(other.close())

    assert sorted(delivered + rabbit_stage.delivered()) == sorted(job.id for job in jobs)


def test_a_due_job_that_another_transaction_holds_is_neither_lost_nor_asked_for_without_rest(
    rabbit_stage: Stage,
) -> None:
    (job,) = rabbit_stage.accept_due()
    rounds: list[None] = []
    dispatcher = rabbit_stage.dispatcher()
    dispatcher.after_round = lambda: rounds.append(None)

    with rabbit_stage.holding(job), rabbit_stage.playing(dispatcher):
        eventually(lambda: len(rounds) >= 5, within_seconds=30)
        rested = dispatcher._held_wait_seconds
    rabbit_stage.play(dispatcher)

    assert rested > 0.1
    assert rabbit_stage.delivered() == [job.id]


def test_blocked_jobs_fill_their_queue_up_to_its_limit(rabbit_stage: Stage) -> None:
    rabbit_stage.accept_blocked(50)

    rabbit_stage.play(rabbit_stage.dispatcher(queue_limit_messages=20, dispatch_batch_jobs=8))

    assert 10 <= len(rabbit_stage.delivered()) <= 20


def test_a_queue_that_is_half_full_is_left_alone(stage: Stage) -> None:
    stage.store.wait(stage.broker.publish([a_message(QUEUE) for _ in range(10)]))
    eventually(lambda: stage.store.wait(stage.broker.depths([QUEUE])) == {QUEUE: 10})
    jobs = stage.accept_blocked(5)

    stage.play(stage.dispatcher(queue_limit_messages=20))

    assert stage.states(jobs) == {State.BLOCKED}


def test_due_jobs_wait_in_the_store_while_their_queue_is_full(rabbit_stage: Stage) -> None:
    dispatcher = rabbit_stage.dispatcher(queue_limit_messages=20, dispatch_batch_jobs=8)
    rabbit_stage.accept_due(50)

    rabbit_stage.play(dispatcher)

    assert len(rabbit_stage.delivered()) < 20 + 8
    ((waiting,),) = rabbit_stage.store.rows("SELECT count(*) FROM jobs WHERE state = 'blocked'")
    assert waiting >= 50 - 20 - 8


def test_every_blocked_job_gets_its_turn_when_the_queue_is_emptied(stage: Stage) -> None:
    jobs = stage.accept_blocked(50)

    with stage.playing(stage.dispatcher(queue_limit_messages=20, dispatch_poll_seconds=0.05)):
        delivered = stage.delivers(jobs)

    assert sorted(delivered) == sorted(job.id for job in jobs)


def test_a_dispatcher_without_a_broker_leaves_jobs_where_they_are(brokerless_stage: Stage) -> None:
    jobs = brokerless_stage.accept_due(3)

    with pytest.raises(BrokerUnavailable):
        brokerless_stage.play(brokerless_stage.dispatcher())

    assert brokerless_stage.states(jobs) == {State.SCHEDULED}
