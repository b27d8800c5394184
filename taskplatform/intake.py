"""Accepts jobs: gathers what arrives together into one commit, answers when it is durable, and has it published."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from taskplatform.backlog import Backlog
from taskplatform.broker.contract import Broker
from taskplatform.errors import OutcomeUnknown, Overloaded, TaskplatformError, Unavailable
from taskplatform.gathering import Gathering
from taskplatform.job import Envelope, NewJob, State
from taskplatform.publish import Publisher
from taskplatform.settings import Settings
from taskplatform.store.contract import QUEUE_FULL, Acceptance, Accepted, IntakeStore, Release
from taskplatform.telemetry import logger
from taskplatform.topology import work_queue
from taskplatform.tracing import Step

FLIGHTS = 2
"""Commits that are under way at the same time."""
WAITING_BATCHES = 20
"""How many full batches may wait for a commit before callers are turned away."""
SETTLE_SECONDS = 0.2
"""How long a confirmed outbox row waits for a commit to ride along with."""


class Stored(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job with what became of it; `state` is where the gates have put it."""

    verdict: Acceptance
    state: State
    blocked_on: str | None = None


@dataclass(frozen=True, slots=True)
class _Submission:
    jobs: Sequence[NewJob]
    answer: asyncio.Future[list[Stored]]
    whole: bool


class Intake:
    """Group commit for one process, on one event loop."""

    def __init__(self, store: IntakeStore, broker: Broker, publisher: Publisher, settings: Settings) -> None:
        self._store = store
        self._broker = broker
        self._window_seconds = settings.commit_window_seconds
        self._batch_jobs = settings.commit_batch_jobs
        self._backlog = Backlog(broker, settings.queue_limit_messages, publisher.freight)
        self._gathering = Gathering(publisher, self._settle_later)
        self._metrics = publisher.metrics
        self._log = logger("taskplatform.intake")
        self._waiting: deque[_Submission] = deque()
        self._waiting_jobs = 0
        self._flights = 0
        self._timer: asyncio.Handle | None = None
        self._settled: list[int] = []
        self._settle_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def submit(self, jobs: Sequence[NewJob], *, whole: bool = False) -> list[Stored]:
        """Store jobs in one commit with what others hand in at the moment; what may run is published after it.

        When it returns, every Accepted job is durable. A job whose queue is full is stored as blocked. Whoever stops
        waiting gets no answer; the jobs are stored all the same. A `whole` is stored by itself, all of it or nothing.

        Raises StoreUnavailable and Overloaded when nothing was stored, OutcomeUnknown when that cannot be told.
        """
        return await self.hand_in(jobs, whole=whole)

    def hand_in(self, jobs: Sequence[NewJob], *, whole: bool = False) -> asyncio.Future[list[Stored]]:
        """Do as `submit`, and give the answer to come; whoever has waited enough may settle it. Raises Overloaded."""
        if self._stopping:
            raise Overloaded("this process is stopping")
        if self._waiting_jobs and self._waiting_jobs + len(jobs) > self._batch_jobs * WAITING_BATCHES:
            raise Overloaded("too many submissions are waiting to be stored")
        submission = _Submission(jobs, asyncio.get_running_loop().create_future(), whole)
        self._waiting.append(submission)
        self._waiting_jobs += len(jobs)
        self._plan()
        return submission.answer

    async def publish(self, releases: Sequence[Release]) -> None:
        """Publish jobs that are queued already; what is not confirmed stays in the outbox for the relay."""
        await self._gathering.publish(releases)

    async def stop(self) -> None:
        """Take nothing more; return when all that was taken is stored, published as far as possible, and settled."""
        self._stopping = True
        while self._waiting or self._tasks:
            if self._waiting and self._flights < FLIGHTS:
                self._take_off()
            await asyncio.wait(tuple(self._tasks), return_when=asyncio.FIRST_COMPLETED)
        await self._gathering.finish()
        await self._backlog.stop()
        if self._settle_timer is not None:
            self._settle_timer.cancel()
        await self._settle()

    def _plan(self) -> None:
        if self._waiting_jobs >= self._batch_jobs and 0 < self._flights < FLIGHTS:
            self._take_off()
        elif self._timer is None and self._flights < FLIGHTS:
            loop = asyncio.get_running_loop()
            # Idle: the first flies at once, with whatever else the loop has ready in this turn.
            busy = self._flights and self._window_seconds
            self._timer = (
                loop.call_later(self._window_seconds, self._take_off) if busy else loop.call_soon(self._take_off)
            )

    def _take_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        crew = [self._waiting.popleft()]
        size = len(crew[0].jobs)
        while self._waiting and self._may_join(crew[0], size):
            crew.append(self._waiting.popleft())
            size += len(crew[-1].jobs)
        self._waiting_jobs -= size
        self._flights += 1
        self._spawn(self._fly(crew))

    def _may_join(self, first: _Submission, size: int) -> bool:
        following = self._waiting[0]
        return not (first.whole or following.whole) and size + len(following.jobs) <= self._batch_jobs

    async def _fly(self, crew: Sequence[_Submission]) -> None:
        try:
            await self._commit(crew)
        except Exception as error:  # noqa: BLE001  Whoever waits has to hear of it, whatever it is.
            if not isinstance(error, TaskplatformError):
                self._log.error("A commit failed unexpectedly", exc_info=error)
            for submission in crew:
                if not submission.answer.done():
                    submission.answer.set_exception(error)
        finally:
            self._flights -= 1
            if self._waiting:
                self._take_off()

    async def _commit(self, crew: Sequence[_Submission]) -> None:
        jobs = [self._gated(job) for submission in crew for job in submission.jobs]
        tracer = self._metrics.tracer
        began = 0.0 if tracer is None else time.time()
        verdicts = await (self._store.accept_whole(jobs) if crew[0].whole else self._accept(jobs))
        self._metrics.intake_batch_size.observe(len(jobs))
        if tracer is not None:
            tracer.note_all(_accepted(jobs, verdicts, began))
        stored = [
            Stored(verdict=verdict, state=job.state, blocked_on=job.blocked_on)
            for job, verdict in zip(jobs, verdicts, strict=True)
        ]
        begin = 0
        for submission in crew:
            end = begin + len(submission.jobs)
            if not submission.answer.done():
                submission.answer.set_result(stored[begin:end])
            begin = end
        self._follow_up(jobs, verdicts)

    async def _accept(self, jobs: Sequence[NewJob]) -> list[Acceptance]:
        settled, self._settled = self._settled, []
        try:
            return await self._store.accept(jobs, settled=settled)
        except BaseException:
            self._settle_later(settled)
            raise

    def _gated(self, job: NewJob) -> NewJob:
        if job.state is not State.QUEUED or self._backlog.take(work_queue(job.pool, job.priority)):
            return job
        return msgspec.structs.replace(job, state=State.BLOCKED, blocked_on=QUEUE_FULL)

    def _follow_up(self, jobs: Sequence[NewJob], verdicts: Sequence[Acceptance]) -> None:
        releases = []
        accepted: Counter[tuple[str, str]] = Counter()
        for job, verdict in zip(jobs, verdicts, strict=True):
            if isinstance(verdict, Accepted):
                accepted[job.task, job.pool] += 1
                if verdict.outbox_id is not None:
                    releases.append(Release(envelope=envelope_of(job), outbox_id=verdict.outbox_id))
        for (task, pool), count in accepted.items():
            self._metrics.jobs_submitted_total.labels(task=self._metrics.task_label(task), pool=pool).inc(count)
        self._metrics.mode.labels(component="broker").set(not self._broker.connected)
        if not self._broker.connected:
            return
        self._gathering.add(releases)
        self._backlog.refresh()

    def _settle_later(self, rows: Sequence[int]) -> None:
        self._settled.extend(rows)
        if self._settled and self._settle_timer is None and not self._stopping:
            loop = asyncio.get_running_loop()
            self._settle_timer = loop.call_later(SETTLE_SECONDS, lambda: self._spawn(self._settle()))

    async def _settle(self) -> None:
        self._settle_timer = None
        rows, self._settled = self._settled, []
        if not rows:
            return
        try:
            await self._store.settle_outbox(rows)
        except (Unavailable, OutcomeUnknown) as error:
            # A row that stays is published once more by the relay, which is harmless.
            self._log.info("Confirmed outbox rows stay for the relay", trouble=str(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def envelope_of(job: NewJob) -> Envelope:
    """Give what travels in the message of a job."""
    return Envelope(
        id=job.id,
        task=job.task,
        body=job.body,
        tenant=job.tenant,
        pool=job.pool,
        priority=job.priority,
        task_version=job.task_version,
        soft_limit_seconds=job.soft_limit_seconds,
        hard_limit_seconds=job.hard_limit_seconds,
        trace=job.trace,
    )


def _accepted(jobs: Sequence[NewJob], verdicts: Sequence[Acceptance], began: float) -> Iterator[Step]:
    ended = time.time()
    facts = {"batch.jobs": len(jobs)}
    for job, verdict in zip(jobs, verdicts, strict=True):
        if isinstance(verdict, Accepted):
            yield Step(name="accept", job=job, began=began, ended=ended, facts={**facts, "job.state": job.state.value})
