"""Takes jobs straight into the broker while the store is away: those whose message says all that their row would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from datetime import UTC, datetime
from random import randrange

import msgspec

from taskplatform.broker.contract import Broker
from taskplatform.cancelling import cancel
from taskplatform.catalogue import Catalogue
from taskplatform.errors import BrokerUnavailable, OutcomeUnknown, ShardMoved, StoreUnavailable, TaskplatformError
from taskplatform.ids import SHARDS
from taskplatform.intake import Intake, Stored, envelope_of
from taskplatform.job import NewJob, State
from taskplatform.publish import Publisher
from taskplatform.store.contract import Accepted, IntakeStore, Release
from taskplatform.telemetry import logger

PATIENCE_SECONDS = 1.5
"""How long the store may keep everybody waiting before it counts as away."""
PROBE_SECONDS = 0.5
MODE = (b"tp-mode", b"store-away")
"""The header of every answer while it is open."""
MOST_JOBS = 10_000
"""How many jobs may wait for the broker's confirm at once."""


class Direct(Stored, frozen=True, kw_only=True, gc=False):
    """A job that is in the broker alone: its row is made when a worker takes it."""


class Detour:
    """The way around a store that is away, for one process and Postgres cluster; it opens and closes by itself.

    A job may be handed to both, the store and the broker: its id decides, and it is one job.
    """

    def __init__(
        self,
        intake: Intake,
        store: IntakeStore,
        broker: Broker,
        publisher: Publisher,
        catalogue: Catalogue,
        *,
        component: str = "writes",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._store = store
        self._component = component
        self._broker = broker
        self._publisher = publisher
        self._metrics = publisher.metrics
        self._catalogue = catalogue
        self._clock = clock
        self._stored_at = float("-inf")
        self._probing: asyncio.Task[None] | None = None
        self._publishing_jobs = 0
        self._log = logger("api.detour")

    @property
    def open(self) -> bool:
        """Whether the store counts as away."""
        return self._probing is not None

    async def submit(self, jobs: Sequence[NewJob], *, whole: bool = False) -> list[Stored]:
        """Store jobs as the intake does, or, while the store is away, have the broker confirm their messages.

        The broker takes a submission without keys, times and the like, whose message is signed, persistent and in a
        quorum queue. Any other is refused while the store is away, at once. Raises what `Intake.submit` raises, and
        OutcomeUnknown when the store has stored nothing for anybody for PATIENCE_SECONDS.
        """
        fits = self._fits(jobs, whole=whole)
        if self.open:
            away = StoreUnavailable("Postgres takes no writes at the moment")
            if not fits:
                raise away
            return await self._publish(jobs, away)
        try:
            return await self._hand_in_in_time(jobs, whole=whole)
        except ShardMoved:
            # It is there, and says that another cluster has to be asked.
            raise
        except (StoreUnavailable, OutcomeUnknown) as error:
            self._depart(str(error))
            if not fits:
                raise
            return await self._publish(jobs, error)

    def any_shard(self) -> int:
        """Choose a shard for a job that may live anywhere."""
        return randrange(SHARDS)

    async def stop(self) -> None:
        """Look no longer whether the store is back."""
        if self._probing is not None:
            await cancel(self._probing)

    def _fits(self, jobs: Sequence[NewJob], *, whole: bool) -> bool:
        # An atomic batch of one transaction has no counterpart in the broker, unless it is one job.
        return not (whole and len(jobs) > 1) and all(map(self._says_all, jobs))

    def _says_all(self, job: NewJob) -> bool:
        checker = self._catalogue.known(job.task)
        plain = job.key is None and job.state is State.QUEUED and job.expires_at is None and not job.tags
        return plain and checker is not None and job.max_attempts == checker.spec.max_attempts

    async def _hand_in_in_time(self, jobs: Sequence[NewJob], *, whole: bool) -> list[Stored]:
        answer = self._intake.hand_in(jobs, whole=whole)
        doubt = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._doubt, answer)
        try:
            stored = await answer
        finally:
            doubt.cancel()
        self._stored_at = self._clock()
        return stored

    def _doubt(self, answer: asyncio.Future[list[Stored]]) -> None:
        if answer.done():
            return
        if self._clock() - self._stored_at > PATIENCE_SECONDS:
            answer.set_exception(OutcomeUnknown(f"Postgres has stored nothing for {PATIENCE_SECONDS:g} s"))
        else:
            # A store that is only slow stores for others meanwhile.
            asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._doubt, answer)

    async def _publish(self, jobs: Sequence[NewJob], trouble: TaskplatformError) -> list[Stored]:
        reachable = self._broker.keeps_confirmed and self._broker.connected
        if not reachable or self._publishing_jobs + len(jobs) > MOST_JOBS:
            raise trouble
        releases = [
            Release(envelope=msgspec.structs.replace(envelope_of(job), series=None), outbox_id=None) for job in jobs
        ]
        self._publishing_jobs += len(jobs)
        try:
            confirmed = await self._publisher(releases)
        except BrokerUnavailable as error:
            raise OutcomeUnknown(f"neither the store nor the broker confirmed it: {error}") from error
        finally:
            self._publishing_jobs -= len(jobs)
        if len(confirmed) < len(jobs):
            raise OutcomeUnknown(f"the broker confirmed {len(confirmed)} of {len(jobs)} messages")
        for job in jobs:
            self._metrics.jobs_submitted_total.labels(task=self._metrics.task_label(job.task), pool=job.pool).inc()
        now = datetime.now(UTC)
        return [Direct(verdict=Accepted(id=job.id, created_at=now, outbox_id=None), state=State.QUEUED) for job in jobs]

    def _depart(self, why: str) -> None:
        if self._probing is None:
            self._log.warning("The store is away: jobs without keys go straight into the broker", trouble=why)
            self._metrics.mode.labels(component=self._component).set(1)
            # It outlives this request, and is no part of its trace.
            self._probing = asyncio.get_running_loop().create_task(self._probe(), context=Context())

    async def _probe(self) -> None:
        try:
            while True:
                await asyncio.sleep(PROBE_SECONDS)
                # Whoever stops asking, whatever for, would take it for well with nothing proven.
                (trouble,) = await asyncio.gather(self._store.prove(PATIENCE_SECONDS), return_exceptions=True)
                if trouble is not None:
                    if not isinstance(trouble, TaskplatformError):
                        self._log.warning("The store cannot be asked whether it is back", trouble=repr(trouble))
                    continue
                self._stored_at = self._clock()
                self._metrics.mode.labels(component=self._component).set(0)
                self._log.warning("The store is back")
                return
        finally:
            self._probing = None
