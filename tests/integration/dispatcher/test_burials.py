"""What can never run ends in the dead letters, for the right reason, and takes no innocent job with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import kombu
import pytest

from taskplatform.errors import BrokerUnavailable, StoreUnavailable
from taskplatform.job import DeadLetter, Envelope, NewJob, Reason, State
from taskplatform.payload import CONTENT_TYPE, Message, encode
from taskplatform.store.contract import LetterFilter
from taskplatform.topology import DELIVERY_LIMIT, dead_queue
from tests.fixtures.waiting import eventually
from tests.integration.dispatcher.conftest import KEY, QUEUE, Stage

DEAD = dead_queue("default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A message as somebody puts it into a work queue."""

    body: bytes
    headers: Mapping[str, Any]
    content_type: str = CONTENT_TYPE


def of(message: Message) -> Parcel:
    return Parcel(body=message.body, headers=message.headers)


def unsigned(good: Message) -> Parcel:
    return Parcel(
        body=good.body, headers={name: value for name, value in good.headers.items() if name != "tp-signature"}
    )


def signed(*, body: str = "[[1], {}, null]", key: str = KEY) -> Message:
    return encode(Envelope(id=uuid4(), task="shop.ship", body=body, tenant="acme", pool="default"), key.encode())


MALFORMED: list[tuple[str, Callable[[Message], Parcel], Reason]] = [
    ("no json", lambda _: of(signed(body="{{{")), Reason.UNDECODABLE),
    ("no triple", lambda _: of(signed(body='{"args": 1}')), Reason.MALFORMED),
    ("a pickle", lambda good: replace(of(good), content_type="application/x-python-serialize"), Reason.UNDECODABLE),
    (
        "compressed",
        lambda good: Parcel(body=good.body, headers={**good.headers, "compression": "bz2"}),
        Reason.MALFORMED,
    ),
    ("unsigned", unsigned, Reason.UNSIGNED),
    ("another task", lambda good: Parcel(body=good.body, headers={**good.headers, "task": "os.system"}), Reason.FORGED),
    ("another body", lambda good: Parcel(body=b"[[2], {}, null]", headers=good.headers), Reason.FORGED),
    ("another key", lambda _: of(signed(key="k" * 32)), Reason.FORGED),
    ("nothing", lambda _: Parcel(body=b"", headers={}), Reason.UNSIGNED),
]


@pytest.mark.parametrize(("parcel", "reason"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_a_malformed_message_is_buried_for_its_reason(
    rabbit_stage: Stage, parcel: Callable[[Message], Parcel], reason: Reason
) -> None:
    job, message = _queued(rabbit_stage)
    sent = parcel(message)
    reject(rabbit_stage, sent)

    letter = _buried(rabbit_stage)

    assert (letter.reason, letter.raw, letter.job_id) == (reason, sent.body, None)
    assert rabbit_stage.states([job]) == {State.QUEUED}


def test_a_job_that_no_worker_knows_is_dead(rabbit_stage: Stage) -> None:
    job, message = _queued(rabbit_stage)
    reject(rabbit_stage, of(message))

    letter = _buried(rabbit_stage)

    assert (letter.reason, letter.job_id, letter.tenant, letter.queue) == (
        Reason.UNKNOWN_TASK,
        job.id,
        job.tenant,
        QUEUE,
    )
    assert rabbit_stage.store.job(job.id).state is State.DEAD
    assert rabbit_stage.store.job(job.id).reason == Reason.UNKNOWN_TASK


def test_a_job_whose_message_came_back_too_often_is_dead(rabbit_stage: Stage) -> None:
    job, message = _queued(rabbit_stage)
    reject(rabbit_stage, of(message), times=DELIVERY_LIMIT + 1)

    letter = _buried(rabbit_stage)

    assert (letter.reason, letter.job_id) == (Reason.DELIVERY_LIMIT, job.id)
    assert rabbit_stage.states([job]) == {State.DEAD}


def test_an_unsigned_message_buries_its_job_only_where_unsigned_ones_are_taken(rabbit_stage: Stage) -> None:
    job, message = _queued(rabbit_stage)
    reject(rabbit_stage, unsigned(message))

    letter = _buried(rabbit_stage, allow_unsigned_messages=True)

    assert (letter.reason, letter.job_id) == (Reason.UNKNOWN_TASK, job.id)


def test_a_late_copy_of_a_message_does_not_touch_the_job_that_runs(rabbit_stage: Stage) -> None:
    job, message = _queued(rabbit_stage)
    rabbit_stage.store.started(job)
    reject(rabbit_stage, of(message))

    eventually(lambda: rabbit_stage.store.wait(rabbit_stage.broker.depths([DEAD])) == {DEAD: 1}, within_seconds=30)

    rabbit_stage.play(rabbit_stage.undertaker())

    assert (rabbit_stage.states([job]), letters(rabbit_stage)) == ({State.RUNNING}, [])


def test_a_buried_message_is_gone_from_the_broker(rabbit_stage: Stage) -> None:
    _, message = _queued(rabbit_stage)
    reject(rabbit_stage, of(message))

    _buried(rabbit_stage)

    assert rabbit_stage.store.wait(rabbit_stage.broker.depths([DEAD])) == {DEAD: 0}


def test_what_could_not_be_stored_is_buried_later(rabbit_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    _, message = _queued(rabbit_stage)
    reject(rabbit_stage, of(message))

    with monkeypatch.context() as outage:
        outage.setattr(rabbit_stage.store.services, "bury", _raises(StoreUnavailable("away")))
        eventually(lambda: _round_fails(rabbit_stage, StoreUnavailable))
    rabbit_stage.play(rabbit_stage.undertaker())

    assert [letter.reason for letter in letters(rabbit_stage)] == [Reason.UNKNOWN_TASK]


def test_an_acknowledgement_that_is_lost_leaves_one_dead_letter_of_a_job(
    rabbit_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, message = _queued(rabbit_stage)
    reject(rabbit_stage, of(message))

    with monkeypatch.context() as outage:
        outage.setattr(rabbit_stage.broker, "settle_dead", _raises(BrokerUnavailable("away")))
        eventually(lambda: _round_fails(rabbit_stage, BrokerUnavailable))
    rabbit_stage.play(rabbit_stage.undertaker())

    assert [letter.job_id for letter in letters(rabbit_stage)] == [job.id]


def _queued(stage: Stage) -> tuple[NewJob, Message]:
    (job,) = stage.accept()
    envelope = Envelope(id=job.id, task=job.task, body=job.body, tenant=job.tenant, pool=job.pool)
    return job, encode(envelope, KEY.encode())


def reject(stage: Stage, parcel: Parcel, times: int = 1) -> None:
    with kombu.Connection(stage.broker_url) as connection:
        channel: Any = connection.default_channel
        message = channel.prepare_message(
            parcel.body, headers=dict(parcel.headers), content_type=parcel.content_type, content_encoding="utf-8"
        )
        channel.basic_publish(message, exchange="", routing_key=QUEUE)
        for _ in range(times):
            taken = eventually(lambda: channel.basic_get(QUEUE), within_seconds=30)
            channel.basic_reject(taken.delivery_tag, requeue=times > 1)


def _buried(stage: Stage, **settings: Any) -> DeadLetter:
    with stage.playing(stage.undertaker(**settings)):
        (letter,) = eventually(lambda: letters(stage), within_seconds=30)
        eventually(lambda: stage.store.wait(stage.broker.depths([DEAD])) == {DEAD: 0})
    whole = stage.store.wait(stage.store.services.letter(letter.id))
    assert whole is not None
    return whole


def letters(stage: Stage) -> list[DeadLetter]:
    return stage.store.wait(stage.store.services.letters(LetterFilter(tenant=None), 100))


def _round_fails(stage: Stage, error: type[Exception]) -> bool:
    try:
        stage.store.wait(stage.undertaker().run_once())
    except error:
        return True
    return False


def _raises(error: Exception) -> Callable[..., Any]:
    async def fail(*_: object) -> None:
        raise error

    return fail
