"""Turns released jobs into signed messages, short ones of a kind into one, and tells what is safe in the broker."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from taskplatform.broker.contract import Broker
from taskplatform.bundle import encode_group, gather
from taskplatform.errors import BrokerUnavailable, InvalidInput
from taskplatform.freight import Freight
from taskplatform.job import Envelope
from taskplatform.payload import Message
from taskplatform.store.contract import Release
from taskplatform.telemetry import Metrics, logger
from taskplatform.tracing import Fact, Step, StepKind


def singly(_task: str) -> int:
    """Say of any task that its jobs travel each in a message of its own."""
    return 1


@dataclass(frozen=True, slots=True)
class _Parcel:
    jobs: Sequence[Envelope]
    message: Message


class Publisher:
    """Publishes for one process: signs with `key`, counts in `metrics`.

    `most` says of a task how many of its jobs one message may carry. `freight` is what is known of the messages.
    """

    def __init__(self, broker: Broker, key: bytes, metrics: Metrics, most: Callable[[str], int] = singly) -> None:
        self._broker = broker
        self._key = key
        self._most = most
        self.metrics = metrics
        self.freight = Freight()
        self._log = logger("taskplatform.publish")

    async def __call__(self, releases: Sequence[Release]) -> set[UUID]:
        """Publish the messages of the jobs, all in flight at once; gives the ids of the jobs that the broker confirmed.

        Raises BrokerUnavailable when it confirmed none of them.
        """
        if not releases:
            return set()
        # A job that is released twice at a time is one: a message goes by the id of its first job.
        jobs = {release.envelope.id: release.envelope for release in releases}
        sent = self._encode(list(jobs.values()))
        began = time.monotonic()
        tracer = self.metrics.tracer
        began_at = 0.0 if tracer is None else time.time()
        answered = await self._broker.publish([one.message for one in sent])
        if tracer is not None:
            tracer.note_all(_published(sent, answered, began_at))
        self.metrics.publish_seconds.observe(time.monotonic() - began)
        self.metrics.publish_unconfirmed_total.inc(len(sent) - len(answered))
        if sent and not answered:
            raise BrokerUnavailable(f"the broker confirmed none of {len(sent)} messages")
        confirmed = [one for one in sent if one.message.id in answered]
        self._weigh(confirmed)
        return {job.id for one in confirmed for job in one.jobs}

    def _encode(self, jobs: Sequence[Envelope]) -> list[_Parcel]:
        sent = []
        for group in gather(jobs, self._most):
            try:
                message = encode_group(group, self._key)
            except InvalidInput as error:
                # What makes no message must not hold up what is beside it.
                for job in group:
                    self._log.error("This job has no message", job_id=str(job.id), trouble=error.detail)
            else:
                sent.append(_Parcel(group, message))
        return sent

    def _weigh(self, confirmed: Sequence[_Parcel]) -> None:
        messages: Counter[str] = Counter()
        jobs: Counter[str] = Counter()
        for one in confirmed:
            messages[one.message.routing_key] += 1
            jobs[one.message.routing_key] += len(one.jobs)
        for queue, count in messages.items():
            self.freight.note(queue, messages=count, jobs=jobs[queue])


def settled_rows(releases: Sequence[Release], confirmed: Collection[UUID]) -> list[int]:
    """Name the outbox rows of which every message was confirmed."""
    wanted = Counter(release.outbox_id for release in releases)
    done = Counter(release.outbox_id for release in releases if release.envelope.id in confirmed)
    return [row for row, count in wanted.items() if row is not None and done[row] == count]


def _published(sent: Sequence[_Parcel], answered: Collection[str], began: float) -> Iterator[Step]:
    ended = time.time()
    batch_jobs = sum(len(one.jobs) for one in sent)
    for one in sent:
        facts: dict[str, Fact] = {
            "batch.jobs": batch_jobs,
            "message.jobs": len(one.jobs),
            "queue": one.message.routing_key,
        }
        trouble = None if one.message.id in answered else "the broker did not confirm the message"
        for job in one.jobs:
            yield Step(
                name="publish",
                job=job,
                began=began,
                ended=ended,
                kind=StepKind.PRODUCER,
                facts=facts,
                trouble=trouble,
            )
