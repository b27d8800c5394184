"""The parent of a worker: joins messages, store, pool and acknowledgements, and decides when each is asked."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from taskplatform.job import AttemptEnd, Envelope, Outcome
from taskplatform.settings import Settings
from taskplatform.store.statements import call, read_turn, turn_calls
from taskplatform.store.working import Claimed, Ended, Lease, PutOff
from taskplatform.telemetry import Metrics, logger
from taskplatform.tracing import trace_id_of
from workers.admission import Admission
from workers.checkpoints import Checkpoints
from workers.cluster import Cluster
from workers.endings import handed_back
from workers.events import Events
from workers.figures import Figures, TurnFigures
from workers.floor import Pool
from workers.held import Held, Settlement, Turn
from workers.link import Answer, NotAtHome, Refused, Row, Rows
from workers.loop import Loop
from workers.pipeline import Pipeline
from workers.receipts import Receipts
from workers.registry import Registry
from workers.spans import Spans

LINGER_SECONDS = 0.005
FAINT_SECONDS = 30.0
"""A worker whose event loop did not turn for so long is not called alive; connecting to a broker may take a while."""
_WELL_FILLED = 8
_WATCH_SECONDS = 1.0

_log = logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a parent is made of."""

    settings: Settings
    name: str
    registry: Registry
    pipeline: Pipeline
    pool: Pool
    clusters: Sequence[Cluster]
    checkpoints: Checkpoints
    metrics: Metrics
    events: Events
    spans: Spans | None = None


class Parent:
    """Runs turns: what has ended is recorded and what may run is claimed in one commit, and the acks follow it.

    While Postgres is away it holds outcomes and acks, and claims nothing: one turn at most is on its way to a cluster.
    Each of several clusters has a link and turns of its own, and one in trouble holds up no other's.
    """

    def __init__(self, parts: Parts) -> None:
        self._settings = parts.settings
        self._name = parts.name
        self._registry = parts.registry
        self.pipeline = parts.pipeline
        self.pool = parts.pool
        self.checkpoints = parts.checkpoints
        self._clusters = parts.clusters
        self._figures = Figures(parts.metrics)
        self._figures.show(parts.pipeline, parts.pool.num_processes)
        self.events = parts.events
        self._spans = parts.spans
        self.admission = Admission(parts.settings, parts.registry, parts.pipeline, self.wake)
        self._due = False
        self._full = False
        self._started = False
        self._beat_at = time.monotonic()
        loop = parts.pool.loop
        self._loop: Loop = loop
        self._linger = loop.alarm(self._take_turn)
        self._lease = loop.alarm(self._renew)
        self._watch = loop.alarm(self._look_for_lost)
        self.pool.floor = self

    def attach(self, hub: Any, receipts: Receipts | None) -> None:
        """Go on with this hub, and with the channel that `receipts` writes to; None while the broker is away."""
        self.admission.receipts = receipts
        self._loop.attach(hub)
        for cluster in self._clusters:
            cluster.link.poll()
        if not self._started:
            self._started = True
            for cluster in self._clusters:
                cluster.start(self._registry.specs, self)
            self._lease.set(self._settings.lease_renew_seconds)
            self._watch.set(_WATCH_SECONDS)
        self.free()
        self.wake()

    def has(self, receipts: Receipts | None) -> bool:
        """Tell whether this is the present channel; None while the broker is away."""
        return self.admission.receipts is receipts

    def channel_lost(self) -> None:
        """The channel is gone: what it delivered will come again."""
        self.admission.receipts = None
        self.pipeline.channel_lost()

    def outcome(self, held: Held, outcome: Outcome, started: float, stopped: float, seconds: float) -> None:
        """See Floor."""
        if self.pipeline.draining and handed_back(outcome):
            self.interrupted(held)
            return
        self.pipeline.pace.observe(held.envelope.task, seconds)
        self._figures.ran(held.envelope.task, seconds)
        self._settle(self.pipeline.ended(held, outcome, started, stopped))
        self.wake()

    def unstarted(self, jobs: Sequence[Held]) -> None:
        """See Floor."""
        self._settle(self.pipeline.put_back(jobs))
        self.wake()

    def interrupted(self, held: Held) -> None:
        """See Floor."""
        self.pipeline.interrupted(held)
        self.wake()

    def free(self) -> None:
        """See Floor."""
        pipeline, pool = self.pipeline, self.pool
        if pipeline.backlog and self._claims_may_be_lost():
            return
        while pipeline.backlog and pool.room():
            chunk = pipeline.take_chunk()
            if not pool.hand_over(chunk, quick=not pipeline.runs_alone(chunk[0])):
                self._settle(pipeline.put_back(chunk))
                break
            if self.events.on:
                self.events.handed(chunk)

    def wake(self) -> None:
        """See to it that a turn is taken soon."""
        if self._due or self._linger.is_set or not any(cluster.free for cluster in self._clusters):
            return
        if self._full:
            self._linger.set(LINGER_SECONDS)
        else:
            self._due = True
            self._loop.call_soon(self._take_turn)

    def drain(self) -> None:
        """Claim nothing more, give back what has not started, and let the rest know."""
        self.pipeline.drain()
        self.pool.drain()
        self._renew()
        self.wake()

    @property
    def drained(self) -> bool:
        """Whether nothing is claimed and everything is recorded."""
        return self.pipeline.idle and all(cluster.turn is None for cluster in self._clusters)

    def end(self, ended: Callable[[], None]) -> None:
        """Give up the lease; `ended` is called when that is recorded."""
        self._lease.clear()
        self._watch.clear()
        left = [cluster.number for cluster in self._clusters]

        def answered(_: Answer) -> None:
            left.pop()
            if not left:
                ended()

        for cluster in self._clusters:
            cluster.ask([call("end_lease", self._name)], answered)

    def close(self) -> None:
        """Hang up."""
        self._linger.clear()
        for cluster in self._clusters:
            cluster.link.close()

    @property
    def begun(self) -> bool:
        """Whether this worker's tasks were ever announced."""
        return any(cluster.announced for cluster in self._clusters)

    @property
    def ready(self) -> bool:
        """Whether this worker takes work now, and its tasks are announced."""
        within_reach = self.admission.receipts is not None and any(cluster.link.connected for cluster in self._clusters)
        return within_reach and self.begun and self.pool.responsive and not self.pipeline.draining

    @property
    def alive(self) -> bool:
        """Whether the event loop turned lately."""
        return not self._started or time.monotonic() - self._beat_at < FAINT_SECONDS

    def _settle(self, settlement: Settlement) -> None:
        receipts = self.admission.receipts
        if receipts is None or not (settlement.ack or settlement.reject):
            return
        receipts.settle(settlement)
        self._loop.call_soon(lambda: self._flush(receipts))

    def _flush(self, receipts: Receipts) -> None:
        if receipts is self.admission.receipts:
            receipts.flush()

    def _take_turn(self) -> None:
        self._due = self._full = False
        for cluster in self._clusters:
            if cluster.free and (turn := self.pipeline.next_turn(cluster.number)) is not None:
                self._full = self._full or turn.size >= _WELL_FILLED
                self._send(cluster, turn)

    def _send(self, cluster: Cluster, turn: Turn) -> None:
        cluster.turn = turn
        cluster.asked_at = time.time()
        calls = turn_calls(turn.endings, turn.claim)
        # A cluster that lost a shard has no row of its jobs, and knew the new map before that: it has to tell at once.
        news = cluster.news() if turn.claim else []
        cluster.ask([*calls, *news], lambda answer: self._answered(cluster, turn, calls, answer))

    def _answered(self, cluster: Cluster, turn: Turn, calls: Sequence[Any], answer: Answer) -> None:
        cluster.turn = None
        match answer:
            case Rows(rows=rows):
                if len(rows) > len(calls):
                    cluster.learn(rows[-1])
                recorded, claimed = read_turn(calls, rows[: len(calls)])
                self._count(turn, cluster.asked_at, recorded, claimed)
                self._settle(self.pipeline.answered(turn, claimed))
            case Refused(detail=detail):
                facts = {} if turn.only is None else {"job_id": str(turn.only)}
                _log.warning("Postgres refused a value of a turn", jobs=turn.size, error=detail, **facts)
                self._settle(self.pipeline.refused(turn, detail))
            case NotAtHome():
                cluster.renew()
                self.pipeline.not_at_home(turn)
        self.resume()

    def _count(self, turn: Turn, began: float, recorded: set[UUID], claimed: Sequence[Claimed]) -> None:
        envelope_of = self.pipeline.envelope_of
        endings = [(envelope_of(ending.id), ending) for ending in turn.endings if ending.id in recorded]
        started = [(envelope_of(claim.id), claim) for claim in claimed if self.pipeline.may_run(claim)]
        self._figures.turn(TurnFigures(size=turn.size, recorded=endings, claimed=started))
        self.events.turned(endings, started)
        if self._spans is not None:
            self._spans.turned(began, endings, started)
        for envelope, ending in endings:
            if isinstance(ending, Ended | PutOff) and ending.end is not AttemptEnd.SUCCEEDED:
                _log_failure(ending, envelope)

    def own_lease(self) -> Lease:
        """See Keeper."""
        return Lease(
            worker=self._name,
            pool=self._settings.worker_pool,
            host=socket.gethostname(),
            pid=os.getpid(),
            processes=self.pool.num_processes,
            lease_seconds=self._settings.lease_seconds,
            draining=self.pipeline.draining,
            running=self.pipeline.taken,
            waiting=self.pipeline.waiting,
            versions=self._registry.versions,
        )

    def attempts(self, cluster: int) -> list[tuple[UUID, int]]:
        """See Keeper."""
        return self.pipeline.attempts(cluster)

    def resume(self) -> None:
        """See Keeper."""
        self.free()
        self.wake()

    def moved(self) -> None:
        """See Keeper."""
        self.pipeline.moved()

    def _renew(self) -> None:
        self._lease.set(self._settings.lease_renew_seconds)
        for cluster in self._clusters:
            cluster.renew()

    def _claims_may_be_lost(self) -> bool:
        # Ask before anything starts; but what an absent cluster keeps must not hold up the jobs of others.
        held_up = False
        for cluster in self._clusters:
            if cluster.may_have_lapsed():
                if cluster.away:
                    self.pipeline.withdraw(cluster.number)
                else:
                    held_up = True
        return held_up

    def _look_for_lost(self) -> None:
        self._watch.set(_WATCH_SECONDS)
        self._beat_at = time.monotonic()
        for cluster in self._clusters:
            if cluster.look():
                _log.warning("a Postgres cluster is away or back", cluster=cluster.number, away=cluster.away)
                self.pipeline.away(cluster.number, away=cluster.away)
                self.resume()
        if self.pipeline.strangers:
            self.pipeline.moved()
            self.resume()

    def lost(self, cluster: int, rows: Sequence[Row]) -> None:
        """See Keeper."""
        held_now = dict(self.pipeline.attempts(cluster))
        gone = [UUID(row[0]) for row in rows if row[0] and held_now.get(UUID(row[0])) == int(row[1] or 0)]
        running, settlement = self.pipeline.lost(gone)
        self.events.lost(gone)
        self._settle(settlement)
        for held in running:
            _log.info("a running job lost its row and is stopped", job_id=str(held.envelope.id))
            self.pool.stop_job(held)


def _log_failure(ending: Ended | PutOff, envelope: Envelope) -> None:
    facts = {
        "job_id": str(ending.id),
        "task": envelope.task,
        "attempt": ending.attempt,
        "tenant": envelope.tenant,
        "end": str(ending.end),
    }
    if envelope.trace is not None:
        facts["trace_id"] = trace_id_of(envelope.trace)
    match ending:
        case Ended(reason=reason):
            _log.warning("a job is dead", reason=str(reason), **facts)
        case PutOff(wait_seconds=wait):
            _log.info("an attempt failed, the job will be tried again", wait_seconds=round(wait, 3), **facts)
