"""Turns released jobs into signed messages, hands them to the broker, and tells what is safe there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from uuid import UUID

from taskplatform.broker.contract import Broker
from taskplatform.errors import BrokerUnavailable, InvalidInput
from taskplatform.payload import Message, encode
from taskplatform.store.contract import Release
from taskplatform.telemetry import Metrics, logger
from taskplatform.tracing import Step, StepKind


class Publisher:
    """Publishes for one process: signs with `key`, counts in `metrics`."""

    def __init__(self, broker: Broker, key: bytes, metrics: Metrics) -> None:
        self._broker = broker
        self._key = key
        self.metrics = metrics
        self._log = logger("taskplatform.publish")

    async def __call__(self, releases: Sequence[Release]) -> set[UUID]:
        """Publish the messages of the jobs, all in flight at once; gives the ids that the broker confirmed.

        Raises BrokerUnavailable when it confirmed none of them.
        """
        if not releases:
            return set()
        encoded = [(release, message) for release in releases if (message := self._encode(release)) is not None]
        messages = [message for _, message in encoded]
        began = time.monotonic()
        tracer = self.metrics.tracer
        began_at = 0.0 if tracer is None else time.time()
        answered = await self._broker.publish(messages)
        if tracer is not None:
            tracer.note_all(_published(encoded, answered, began_at))
        self.metrics.publish_seconds.observe(time.monotonic() - began)
        self.metrics.publish_unconfirmed_total.inc(len(messages) - len(answered))
        if messages and not answered:
            raise BrokerUnavailable(f"the broker confirmed none of {len(messages)} messages")
        return {release.envelope.id for release, message in encoded if message.id in answered}

    def _encode(self, release: Release) -> Message | None:
        try:
            return encode(release.envelope, self._key)
        except InvalidInput as error:
            # One row that makes no message must not hold up those beside it.
            self._log.error("This job has no message", job_id=str(release.envelope.id), trouble=error.detail)
            return None


def settled_rows(releases: Sequence[Release], confirmed: Collection[UUID]) -> list[int]:
    """Name the outbox rows of which every message was confirmed."""
    wanted = Counter(release.outbox_id for release in releases)
    done = Counter(release.outbox_id for release in releases if release.envelope.id in confirmed)
    return [row for row, count in wanted.items() if row is not None and done[row] == count]


def _published(encoded: Sequence[tuple[Release, Message]], answered: Collection[str], began: float) -> Iterator[Step]:
    ended = time.time()
    for release, message in encoded:
        yield Step(
            name="publish",
            job=release.envelope,
            began=began,
            ended=ended,
            kind=StepKind.PRODUCER,
            facts={"batch.jobs": len(encoded), "queue": message.routing_key},
            trouble=None if message.id in answered else "the broker did not confirm the message",
        )
