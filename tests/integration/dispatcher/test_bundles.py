"""Jobs that travel together are confirmed, settled and counted as so many, and taken apart where one of them fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import kombu
import pytest

from taskplatform.bundle import encode_bundle, is_bundle, open_bundle
from taskplatform.errors import BrokerUnavailable
from taskplatform.job import Envelope, NewJob, Reason, State
from taskplatform.payload import CONTENT_TYPE, encode_body
from taskplatform.topology import DELIVERY_LIMIT, dead_queue
from taskplatform.undertaker import diagnose
from tests.fixtures.broker import drain
from tests.fixtures.store import a_job
from tests.fixtures.waiting import eventually
from tests.integration.dispatcher.conftest import KEY, QUEUE, Stage
from tests.integration.dispatcher.test_burials import Parcel, letters, reject

DEAD = dead_queue("default")
PROPERTIES = {"content_type": CONTENT_TYPE}


def carried(stage: Stage, queue: str = QUEUE) -> list[list[UUID]]:
    """Take everything out of a queue; gives the jobs of each message."""
    return [_jobs_of(message) for message in drain(stage.broker_url, queue)]


def a_bundle(stage: Stage, count: int = 3, *, key: str = KEY) -> tuple[list[NewJob], Parcel]:
    """Hand jobs in, and make the message that carries all of them."""
    jobs = stage.accept(count)
    message = encode_bundle(
        [Envelope(id=job.id, task=job.task, body=job.body, tenant=job.tenant, pool=job.pool) for job in jobs],
        key.encode(),
    )
    return jobs, Parcel(body=message.body, headers=message.headers)


def reject_singles(stage: Stage, count: int, which: UUID) -> None:
    """Take so many messages as a worker does that refuses those of one job, and keep the others."""
    with kombu.Connection(stage.broker_url) as connection:
        channel: Any = connection.default_channel
        for _ in range(count):
            taken = eventually(lambda: channel.basic_get(QUEUE), within_seconds=30)
            if UUID(taken.headers["id"]) == which:
                channel.basic_reject(taken.delivery_tag, requeue=False)
            else:
                channel.basic_ack(taken.delivery_tag)


def test_the_relay_settles_a_row_whose_jobs_travelled_together(stage: Stage) -> None:
    bundling = replace(stage, bundle_jobs=8)
    jobs = bundling.accept(20)

    bundling.play(bundling.relay())

    messages = carried(bundling)
    assert (sorted(map(len, messages)), bundling.outbox_rows()) == ([4, 8, 8], 0)
    assert sorted(job for message in messages for job in message) == sorted(job.id for job in jobs)


def test_due_jobs_are_released_together(stage: Stage) -> None:
    bundling = replace(stage, bundle_jobs=100)
    jobs = bundling.accept_due(250)

    bundling.play(bundling.dispatcher())

    messages = carried(bundling)
    assert (sorted(map(len, messages)), bundling.outbox_rows()) == ([50, 100, 100], 0)
    assert sorted(job for message in messages for job in message) == sorted(job.id for job in jobs)


def test_a_row_stays_until_all_its_bundles_are_confirmed(rabbit_stage: Stage) -> None:
    bundling = replace(rabbit_stage, bundle_jobs=5)
    jobs = [a_job(pool=pool) for pool in ("default", "late") for _ in range(5)]
    bundling.store.accept(*jobs)

    bundling.play(bundling.relay())
    before = bundling.outbox_rows()
    bundling.store.wait(bundling.broker.declare(["late"]))
    bundling.play(bundling.relay())

    assert (before, bundling.outbox_rows()) == (1, 0)
    assert [set(message) for message in carried(bundling, "jobs.late.normal")] == [{job.id for job in jobs[5:]}]


def test_no_row_is_settled_while_the_broker_confirms_nothing(rabbit_stage: Stage) -> None:
    bundling = replace(rabbit_stage, bundle_jobs=5)
    bundling.accept(10, pool="nowhere")

    with pytest.raises(BrokerUnavailable):
        bundling.play(bundling.relay())

    assert bundling.outbox_rows() == 1


def test_a_queue_is_filled_up_to_so_many_jobs_however_few_messages_they_are(rabbit_stage: Stage) -> None:
    bundling = replace(rabbit_stage, bundle_jobs=4)
    bundling.accept_blocked(100)

    bundling.play(bundling.dispatcher(queue_limit_messages=40, dispatch_batch_jobs=8))

    assert 20 <= sum(map(len, carried(bundling))) <= 40


@pytest.mark.parametrize("times", [1, DELIVERY_LIMIT + 1], ids=["unknown task", "delivery limit"])
def test_a_rejected_bundle_comes_again_as_single_jobs_and_buries_nobody(rabbit_stage: Stage, times: int) -> None:
    jobs, parcel = a_bundle(rabbit_stage)
    reject(rabbit_stage, parcel, times=times)

    with rabbit_stage.playing(rabbit_stage.undertaker()):
        eventually(lambda: rabbit_stage.store.wait(rabbit_stage.broker.depths([QUEUE])) == {QUEUE: 3})
        eventually(lambda: rabbit_stage.store.wait(rabbit_stage.broker.depths([DEAD])) == {DEAD: 0})

    assert carried(rabbit_stage) == [[job.id] for job in jobs]
    assert (letters(rabbit_stage), rabbit_stage.states(jobs)) == ([], {State.QUEUED})
    assert rabbit_stage.metrics.registry.get_sample_value("tp_bundles_opened_total") == 1


def test_a_job_that_fails_alone_once_more_is_buried_and_its_fellows_are_not(rabbit_stage: Stage) -> None:
    jobs, parcel = a_bundle(rabbit_stage)
    reject(rabbit_stage, parcel)

    with rabbit_stage.playing(rabbit_stage.undertaker()):
        reject_singles(rabbit_stage, len(jobs), jobs[1].id)
        (letter,) = eventually(lambda: letters(rabbit_stage), within_seconds=30)

    assert (letter.reason, letter.job_id) == (Reason.UNKNOWN_TASK, jobs[1].id)
    assert rabbit_stage.states([jobs[0], jobs[2]]) == {State.QUEUED}


def test_a_bundle_stays_while_its_jobs_are_not_confirmed(rabbit_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, parcel = a_bundle(rabbit_stage)
    reject(rabbit_stage, parcel)
    undertaker = rabbit_stage.undertaker()

    with monkeypatch.context() as outage, rabbit_stage.playing(undertaker):
        outage.setattr(rabbit_stage.broker, "publish", _confirms_nothing)
        eventually(lambda: "BrokerUnavailable: 1 bundles are held" in undertaker.trouble, within_seconds=30)
    with rabbit_stage.playing(rabbit_stage.undertaker()):
        eventually(lambda: rabbit_stage.store.wait(rabbit_stage.broker.depths([QUEUE])) == {QUEUE: 3})

    assert carried(rabbit_stage) == [[job.id] for job in jobs]


def test_a_forged_bundle_is_buried_as_it_is(rabbit_stage: Stage) -> None:
    jobs, parcel = a_bundle(rabbit_stage, key="k" * 32)
    reject(rabbit_stage, parcel)

    with rabbit_stage.playing(rabbit_stage.undertaker(allow_unsigned_messages=True)):
        (letter,) = eventually(lambda: letters(rabbit_stage), within_seconds=30)

    whole = rabbit_stage.store.wait(rabbit_stage.store.services.letter(letter.id))
    assert whole is not None
    assert (whole.reason, whole.raw, whole.job_id) == (Reason.FORGED, parcel.body, None)
    assert (carried(rabbit_stage), rabbit_stage.states(jobs)) == ([], {State.QUEUED})


def test_the_jobs_of_a_bundle_that_an_older_dispatcher_buried_come_again(rabbit_stage: Stage) -> None:
    jobs, parcel = a_bundle(rabbit_stage)
    reject(rabbit_stage, parcel)
    store, broker = rabbit_stage.store, rabbit_stage.broker

    # To what knows of no bundles, one is a message like any other.
    (dead,) = eventually(lambda: store.wait(broker.take_dead(DEAD, 1)), within_seconds=30)
    store.wait(store.services.bury([diagnose(dead, [KEY.encode()], allow_unsigned=True)]))
    store.wait(broker.settle_dead([dead]))
    rabbit_stage.play(rabbit_stage.stranded_relay(stranded_after_seconds=0.0001))

    (letter,) = letters(rabbit_stage)
    assert (letter.reason, letter.job_id) == (Reason.FORGED, None)
    assert sorted(carried(rabbit_stage)) == sorted([job.id] for job in jobs)


def test_the_texts_of_jobs_that_travel_together_stay_what_they_are(stage: Stage) -> None:
    bundling = replace(stage, bundle_jobs=3)
    bodies = [encode_body(["ü", None, [1.5, {}]], {"☃": '\\"'}), "[[1 ] , {} , {} ]", encode_body([], {})]
    jobs = [a_job(body=body) for body in bodies]
    bundling.store.accept(*jobs)

    bundling.play(bundling.relay())

    (message,) = drain(bundling.broker_url, QUEUE)
    assert {job.id: job.body for job in _opened(message)} == {job.id: job.body for job in jobs}


def _jobs_of(message: kombu.Message) -> list[UUID]:
    return [job.id for job in _opened(message)] if is_bundle(message.headers) else [UUID(message.headers["id"])]


def _opened(message: kombu.Message) -> list[Envelope]:
    body: Any = message.body
    return open_bundle(message.headers, body if isinstance(body, bytes) else body.encode(), PROPERTIES, [KEY.encode()])


async def _confirms_nothing(*_: object) -> set[str]:
    return set()
