"""Empties the broker's dead-letter queues: messages become dead letters with their reason, bundles are taken apart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any, ClassVar, Protocol
from uuid import UUID

from taskplatform.broker.contract import Broker, DeadMessage
from taskplatform.bundle import is_bundle, open_bundle
from taskplatform.errors import BrokerUnavailable, StoreUnavailable
from taskplatform.job import Envelope, Reason
from taskplatform.payload import Unfit, admit
from taskplatform.publish import Publisher
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.contract import BuriedMessage, Release
from taskplatform.topology import dead_queue

BURY_SECONDS = 1.0
BURY_MESSAGES = 100
HELD_MESSAGES = 1000
"""How many messages of a queue may wait for clusters, or a broker, that are away before no others are taken."""
HELD_SECONDS = 5.0
"""How often it is tried again with those: a cluster that stands still takes its time to say nothing."""
HEADERS_LIMIT_BYTES = 16_384
HEADERS_OVERHEAD_BYTES = 32
HEADERS_DEPTH = 6
TEXT_LIMIT = 1000
"""Longest text of a dead letter beside its headers and raw bytes, in characters."""


class Graves(Protocol):
    """Where dead letters are kept."""

    async def bury(self, messages: Sequence[BuriedMessage]) -> list[bool]:
        """See DispatchStore."""


class Undertaker(Role):
    """Buries what can never run.

    The message is acknowledged after the commit. A crash in between brings it again: for a job that has a row this adds
    nothing, because the job is dead by then; a message that belongs to no row gets a second dead letter, so that doubt
    shows twice rather than not at all.

    Of a bundle it is not known which job has brought it here, so none is buried: each goes back to its queue in a
    message of its own, and what ends here once more speaks for itself. The bundle is acknowledged when all of these are
    confirmed; what is not is published again.

    What belongs to a cluster that is away, one of several, or is not confirmed, is held, and keeps no others waiting.
    """

    name: ClassVar[str] = "undertaker"

    def __init__(
        self,
        store: Graves,
        broker: Broker,
        publish_singly: Publisher,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(publish_singly.metrics, pause_seconds=BURY_SECONDS)
        self._store = store
        self._broker = broker
        self._publish_singly = publish_singly
        self._queues = [dead_queue(pool) for pool in settings.pools]
        self._keys = settings.signing_secrets()
        self._allow_unsigned = settings.allow_unsigned_messages
        self._clock = clock
        self._held: dict[str, set[int]] = {queue: set() for queue in self._queues}
        # Of each bundle that is held, by its tag: the jobs that are safe in their queues already.
        self._confirmed: dict[str, dict[int, set[UUID]]] = {queue: {} for queue in self._queues}
        self._again_at = dict.fromkeys(self._queues, float("-inf"))
        for reason in Reason:
            # Shown as zero at first: Prometheus sees no increase in what was not there before.
            self.metrics.dead_letters_buried_total.labels(reason=reason)

    async def run_once(self) -> bool:
        """Bury one batch of each pool; True when there may be more.

        Raises BrokerUnavailable without a broker. When all is done but what has to be held, raises BrokerUnavailable if
        some of it waits for confirms, else StoreUnavailable.
        """
        more = False
        for queue in self._queues:
            more = await self._empty(queue) or more
        if more:
            return True
        if bundles := sum(map(len, self._confirmed.values())):
            raise BrokerUnavailable(f"{bundles} bundles are held until all their jobs are confirmed")
        if letters := sum(map(len, self._held.values())):
            raise StoreUnavailable(f"{letters} messages are held until the cluster of their jobs is back")
        return False

    async def _empty(self, queue: str) -> bool:
        held = self._held[queue]
        most = min(len(held) + BURY_MESSAGES, HELD_MESSAGES)
        # What is held comes along, before anything new.
        taken = await self._broker.take_dead(queue, most)
        again = self._clock() >= self._again_at[queue]
        tried = [message for message in taken if again or message.tag not in held]
        letters, bundles = self._sort(tried)
        buried = await self._settle(await self._bury(letters))
        # Confirms may be long in coming: what is buried waits for none.
        done = buried | await self._settle(await self._take_apart(queue, bundles))
        if again and len(done) < len(tried):
            # A new one that has to be held puts off none that was held before.
            self._again_at[queue] = self._clock() + HELD_SECONDS
        left = self._held[queue] = {message.tag for message in taken} - done
        self._confirmed[queue] = {tag: jobs for tag, jobs in self._confirmed[queue].items() if tag in left}
        return len(taken) >= most and len(left) < HELD_MESSAGES

    async def _settle(self, done: Sequence[DeadMessage]) -> set[int]:
        if done:
            await self._broker.settle_dead(done)
        return {message.tag for message in done}

    def _sort(
        self, tried: Sequence[DeadMessage]
    ) -> tuple[list[tuple[DeadMessage, BuriedMessage]], list[tuple[DeadMessage, list[Envelope]]]]:
        letters: list[tuple[DeadMessage, BuriedMessage]] = []
        bundles: list[tuple[DeadMessage, list[Envelope]]] = []
        for message in tried:
            try:
                if is_bundle(message.headers):
                    jobs = open_bundle(message.headers, message.body, message.properties, self._keys)
                    bundles.append((message, jobs))
                else:
                    letters.append((message, diagnose(message, self._keys, allow_unsigned=self._allow_unsigned)))
            except Unfit as unfit:
                letters.append((message, _letter_of(message, unfit)))
        return letters, bundles

    async def _bury(self, letters: Sequence[tuple[DeadMessage, BuriedMessage]]) -> list[DeadMessage]:
        if not letters:
            return []
        done = await self._store.bury([letter for _, letter in letters])
        buried = list(compress(letters, done))
        for _, letter in buried:
            self.metrics.dead_letters_buried_total.labels(reason=str(letter.reason)).inc()
        if buried:
            self._log.warning("Buried messages", queue=letters[0][0].queue, messages=len(buried))
        return [message for message, _ in buried]

    async def _take_apart(
        self, queue: str, bundles: Sequence[tuple[DeadMessage, Sequence[Envelope]]]
    ) -> list[DeadMessage]:
        before = self._confirmed[queue]
        missing = [job for message, jobs in bundles for job in jobs if job.id not in before.get(message.tag, ())]
        try:
            confirmed = await self._publish_singly([Release(envelope=job, outbox_id=None) for job in missing])
        except BrokerUnavailable:
            confirmed = set()
        apart = []
        for message, jobs in bundles:
            ids = {job.id for job in jobs}
            safe = before[message.tag] = before.get(message.tag, set()) | (ids & confirmed)
            if safe >= ids:
                apart.append(message)
        if apart:
            self.metrics.bundles_opened_total.inc(len(apart))
            self._log.warning("Took bundles apart", queue=queue, messages=len(apart))
        return apart


def diagnose(message: DeadMessage, keys: Sequence[bytes], *, allow_unsigned: bool) -> BuriedMessage:
    """Say why a message is dead.

    Only one that passes the check of every message speaks for its job: a forged one must not bury somebody's work.
    """
    try:
        envelope = admit(message.headers, message.body, message.properties, keys, allow_unsigned=allow_unsigned)
    except Unfit as unfit:
        return _letter_of(message, unfit)
    reason, detail = _why_given_up(message.reason, envelope.task)
    return BuriedMessage(
        reason=reason,
        queue=_printable(message.source_queue),
        detail=_printable(detail),
        headers=headers_as_json(message.headers),
        raw=message.body,
        tenant=_printable(envelope.tenant),
        job_id=envelope.id,
        task=_printable(envelope.task),
        series=envelope.series,
    )


def headers_as_json(headers: Mapping[str, Any]) -> str:
    """Write headers as one JSON object of at most HEADERS_LIMIT_BYTES, bytes decoded with replacements.

    What does not fit is left out; a key `…` then counts the headers that are missing.
    """
    kept: list[str] = []
    size = HEADERS_OVERHEAD_BYTES
    for name, value in headers.items():
        pair = f"{json.dumps(str(name))}: {json.dumps(_plain(value, HEADERS_DEPTH))}"
        if size + len(pair) + 2 > HEADERS_LIMIT_BYTES:
            continue
        size += len(pair) + 2
        kept.append(pair)
    if len(kept) < len(headers):
        kept.append(f"{json.dumps('…')}: {len(headers) - len(kept)}")
    return "{" + ", ".join(kept) + "}"


def _letter_of(message: DeadMessage, unfit: Unfit) -> BuriedMessage:
    return BuriedMessage(
        reason=unfit.reason,
        queue=_printable(message.source_queue),
        detail=_printable(str(unfit)),
        headers=headers_as_json(message.headers),
        raw=message.body,
    )


def _plain(value: object, depth: int) -> object:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode("utf-8", "replace")
        case Mapping() if depth:
            return {str(name): _plain(inner, depth - 1) for name, inner in value.items()}
        case list() | tuple() if depth:
            return [_plain(inner, depth - 1) for inner in value]
        case _:
            return str(value)[:TEXT_LIMIT]


def _why_given_up(broker_reason: str | None, task: str) -> tuple[Reason, str]:
    if broker_reason == "delivery_limit":
        return Reason.DELIVERY_LIMIT, "the broker handed it out too often"
    return Reason.UNKNOWN_TASK, f"no worker of this pool knows the task {task!r}"


def _printable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:TEXT_LIMIT]
