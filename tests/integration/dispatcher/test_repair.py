"""What got lost on the way, by a crash or by a part that broke its promise, is brought back."""

from __future__ import annotations

import pytest

from taskplatform.errors import BrokerUnavailable
from taskplatform.job import NewJob, State
from tests.fixtures.store import a_job
from tests.fixtures.waiting import eventually
from tests.integration.dispatcher.conftest import QUEUE, Stage


def test_the_relay_publishes_what_stands_in_the_outbox_and_forgets_the_row(stage: Stage) -> None:
    jobs = stage.accept(20)

    stage.play(stage.relay())

    assert (sorted(stage.delivered()), stage.outbox_rows()) == (sorted(job.id for job in jobs), 0)


def test_the_relay_leaves_a_young_row_to_whoever_wrote_it(rabbit_stage: Stage) -> None:
    rabbit_stage.accept()

    rabbit_stage.play(rabbit_stage.relay(relay_after_seconds=3600.0))

    assert (rabbit_stage.delivered(), rabbit_stage.outbox_rows()) == ([], 1)


def test_the_relay_works_off_more_rows_than_one_transaction_takes(rabbit_stage: Stage) -> None:
    jobs = [job for _ in range(120) for job in rabbit_stage.accept()]

    rabbit_stage.play(rabbit_stage.relay())

    assert (sorted(rabbit_stage.delivered()), rabbit_stage.outbox_rows()) == (sorted(job.id for job in jobs), 0)


def test_a_row_whose_message_goes_nowhere_stays_and_holds_up_no_other(rabbit_stage: Stage) -> None:
    rabbit_stage.accept(pool="nowhere")
    (job,) = rabbit_stage.accept()

    rabbit_stage.play(rabbit_stage.relay())

    assert (rabbit_stage.delivered(), rabbit_stage.outbox_rows()) == ([job.id], 1)


def test_the_relay_keeps_every_row_while_the_broker_is_away(brokerless_stage: Stage) -> None:
    brokerless_stage.accept()

    with pytest.raises(BrokerUnavailable):
        brokerless_stage.play(brokerless_stage.relay())

    assert brokerless_stage.outbox_rows() == 1


def test_a_queued_job_whose_message_vanished_is_published_again(stage: Stage) -> None:
    (job,) = _published_and_lost(stage)

    with stage.playing(stage.stranded_relay(stranded_after_seconds=0.05)):
        delivered = stage.delivers([job])

    assert set(delivered) == {job.id}


def test_a_queued_job_is_not_published_again_while_its_queue_holds_messages(stage: Stage) -> None:
    stage.accept(3)
    stage.play(stage.relay())
    eventually(lambda: stage.store.wait(stage.broker.depths([QUEUE])) == {QUEUE: 3})

    stage.play(stage.stranded_relay(stranded_after_seconds=0.0001))

    assert len(stage.delivered()) == 3


def test_a_job_that_was_published_again_is_left_alone_for_a_while(rabbit_stage: Stage) -> None:
    _published_and_lost(rabbit_stage)
    rabbit_stage.store.rows("UPDATE jobs SET queued_at = now() - interval '1 hour'")
    stranded_relay = rabbit_stage.stranded_relay(stranded_after_seconds=60.0)

    rabbit_stage.play(stranded_relay)
    rabbit_stage.delivered()
    rabbit_stage.play(stranded_relay)

    assert rabbit_stage.delivered() == []


def test_what_a_vanished_worker_held_is_tried_again_and_counted(rabbit_stage: Stage) -> None:
    claimed = rabbit_stage.store.running(a_job(), worker="gone")
    with rabbit_stage.playing(rabbit_stage.rescuer()):
        eventually(
            lambda: rabbit_stage.store.job(claimed.id).state is State.RETRYING,
            within_seconds=30,
        )

    assert rabbit_stage.metrics.registry.get_sample_value("tp_jobs_rescued_total", {"state": "retrying"}) == 1


def test_a_job_past_its_deadline_expires_and_is_counted(rabbit_stage: Stage) -> None:
    (job,) = rabbit_stage.accept(expires_at=rabbit_stage.database_time())

    rabbit_stage.play(rabbit_stage.expirer())

    assert rabbit_stage.store.job(job.id).state is State.EXPIRED
    assert rabbit_stage.metrics.registry.get_sample_value("tp_jobs_expired_total") == 1


def test_retention_makes_room_for_the_days_to_come(rabbit_stage: Stage) -> None:
    rabbit_stage.play(rabbit_stage.retention())

    ((partitions,),) = rabbit_stage.store.rows(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'finished_jobs'::regclass"
    )
    assert partitions > 2


def _published_and_lost(stage: Stage) -> list[NewJob]:
    jobs = stage.accept()
    stage.play(stage.relay())
    assert stage.delivered() == [job.id for job in jobs]
    return jobs
