"""What a worker's parent holds and what it does next: waiting, claimed, running and ended jobs, without any I/O."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from random import Random
from typing import TypeVar
from uuid import UUID

from taskplatform.job import Envelope, Outcome
from taskplatform.shards import Homes
from taskplatform.store.working import Claimed, ClaimRequest, Ending, GivenBack
from workers.chunks import next_chunk, runs_alone
from workers.endings import Run, Traits, conclude, too_new, unstorable
from workers.held import ClusterPart, Held, Limits, Settlement, Stage, Tag, Turn
from workers.pace import Pace
from workers.room import Room

T = TypeVar("T")
_MOST_SLOW_AHEAD = 32


class Pipeline:
    """The jobs of one worker process from their message to their acknowledgement.

    A job is claimed at most `window_seconds` of work ahead and in the order of priority. A suspect, which may have
    killed a whole worker, is claimed and run with nothing else beside it. With `homes`, the jobs of each Postgres
    cluster have a part of their own. `clock` gives epoch seconds.
    """

    def __init__(
        self,
        worker: str,
        limits: Limits,
        traits: Mapping[str, Traits],
        random: Random,
        homes: Homes | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.pace = Pace()
        self.draining = False
        self._worker = worker
        self._limits = limits
        self._traits = traits
        self._random = random
        self._clock = clock
        self._held: dict[UUID, Held] = {}
        self._later: dict[UUID, list[tuple[Envelope, Tag]]] = {}
        self._homes = homes
        self._parts = [ClusterPart() for _ in range(1 if homes is None else homes.clusters)]
        self._ready: deque[Held] = deque()
        self._room = Room(limits, self.pace)
        self._tokens = 0

    @property
    def backlog(self) -> int:
        """How many claimed jobs wait for a child."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """How many jobs wait to be claimed."""
        return sum(part.waiting_jobs for part in self._parts)

    @property
    def taken(self) -> int:
        """How many jobs are claimed, or being claimed, and have no outcome yet."""
        return len(self._room.taken)

    @property
    def held(self) -> int:
        """How many jobs are here, in whatever stage."""
        return len(self._held)

    @property
    def idle(self) -> bool:
        """Whether nothing is claimed and no ending waits to be recorded."""
        return all(held.stage is Stage.WAITING for held in self._held.values())

    def receive(self, envelope: Envelope, tag: Tag) -> None:
        """Take a message in.

        A second message of a job that waits is settled with the first. One of a job that is claimed already may be the
        start of the next attempt: it waits until this one is over.
        """
        known = self._held.get(envelope.id)
        if known is None:
            home = self._home(envelope.id)
            held = Held(envelope=envelope, traits=self._traits[envelope.task], tags=[tag], cluster=home)
            self._held[envelope.id] = held
            self._parts[home].held += 1
            self._wait(held)
        elif known.stage is Stage.WAITING:
            known.tags.append(tag)
        else:
            self._later.setdefault(envelope.id, []).append((envelope, tag))

    def channel_lost(self) -> None:
        """The broker will hand out every unsettled message again: forget what only waits, and all tags."""
        for part in self._parts:
            for held in part.take_waiting():
                part.held -= 1
                del self._held[held.envelope.id]
        self._later.clear()
        for held in self._held.values():
            held.tags.clear()

    def next_turn(self, cluster: int = 0) -> Turn | None:
        """Give what to tell and ask a cluster next; None when there is nothing."""
        part = self._parts[cluster]
        if part.refused:
            return part.refused.popleft()
        chosen = [] if self.draining else self._room.choose(part, self._parts)
        claim = self._claim(chosen) if chosen else None
        endings, part.endings = tuple(part.endings), []
        return Turn(endings=endings, claim=claim, cluster=cluster) if claim or endings else None

    def answered(self, turn: Turn, claimed: Sequence[Claimed]) -> Settlement:
        """Take in the store's answer to a turn that was committed."""
        settlement = Settlement()
        for ending in turn.endings:
            self._over(self._held[ending.id], settlement)
        if turn.claim is not None:
            given = {claim.id: claim for claim in claimed}
            for job_id, _ in turn.claim.wanted:
                held = self._held[job_id]
                claim = given.get(job_id)
                if claim is not None:
                    self._start(held, claim)
                    continue
                self._room.let_go(held)
                self._go_home(held)
                if held.cluster == turn.cluster:
                    self._over(held, settlement)
                else:
                    # It was looked for where it was at home before.
                    self._wait(held)
        return settlement

    def refused(self, turn: Turn, detail: str) -> Settlement:
        """Take in that Postgres refused a turn over its data: halve it, until the one bad value is alone.

        A bad ending becomes one that can be stored; a message that cannot be claimed is rejected.
        """
        endings, claim, cluster = turn.endings, turn.claim, turn.cluster
        if endings and claim is not None:
            parts = [Turn(endings=endings, claim=None, cluster=cluster), Turn(endings=(), claim=claim, cluster=cluster)]
        elif len(endings) > 1:
            parts = [Turn(endings=tuple(part), claim=None, cluster=cluster) for part in _halves(endings)]
        elif claim is not None and len(claim.wanted) > 1:
            wanted = [self._held[job_id] for job_id, _ in claim.wanted]
            parts = [Turn(endings=(), claim=self._claim(part), cluster=cluster) for part in _halves(wanted)]
        elif claim is not None:
            return self._reject(self._held[claim.wanted[0][0]])
        else:
            parts = [Turn(endings=(unstorable(ending, detail),), claim=None, cluster=cluster) for ending in endings]
        self._parts[cluster].refused.extendleft(reversed(parts))
        return Settlement()

    def not_at_home(self, turn: Turn) -> None:
        """Take in that a cluster is not, or no longer, the home of a job that it was asked to make a row of.

        Nothing of the turn happened. Its endings are told again, alone, as they cannot be refused so; its claims asked
        where the jobs are at home now, those refused by their very home after `moved`.
        """
        if turn.endings:
            self._parts[turn.cluster].refused.append(Turn(endings=turn.endings, claim=None, cluster=turn.cluster))
        for job_id, _ in turn.claim.wanted if turn.claim else ():
            held = self._held[job_id]
            self._room.let_go(held)
            self._go_home(held)
            self._wait(held, stranger=held.envelope.series is None and held.cluster == turn.cluster)

    def moved(self) -> None:
        """Go by the newest shard map from now on: what waits, waits for the cluster where it is at home."""
        for held in [held for part in self._parts for held in part.take_waiting()]:
            self._go_home(held)
            self._wait(held)

    @property
    def strangers(self) -> bool:
        """Whether jobs wait because the cluster where the map says they are at home refused them."""
        return any(part.strangers for part in self._parts)

    def away(self, cluster: int, *, away: bool) -> None:
        """Take in whether a cluster answers: what an absent one was asked to claim takes no room from others' jobs."""
        self._parts[cluster].away = away
        for held in list(self._room.taken.values()):
            if held.cluster == cluster and held.stage is Stage.CLAIMING:
                self._room.let_go(held)

    def withdraw(self, cluster: int) -> None:
        """Give back what is claimed in a cluster and has not started: its claims may be lost by now."""
        for held in [held for held in self._ready if held.cluster == cluster]:
            self._ready.remove(held)
            self._give_back(held)

    def take_chunk(self) -> list[Held]:
        """Give the next jobs for one child: about 10 ms of quick ones, or a single other one; empty when none is."""
        return next_chunk(self._ready, self._limits, self.pace)

    def runs_alone(self, held: Held) -> bool:
        """Tell whether a job must not share a chunk with others."""
        return runs_alone(held, self.pace)

    def put_back(self, jobs: Iterable[Held]) -> Settlement:
        """Take back claimed jobs that no child has started: they are the next to run, or given back in a drain."""
        settlement = Settlement()
        for held in reversed(list(jobs)):
            if held.lost:
                self._room.let_go(held)
                self._over(held, settlement)
            elif self.draining:
                self._give_back(held)
            else:
                held.stage = Stage.READY
                self._ready.appendleft(held)
        return settlement

    def ended(self, held: Held, outcome: Outcome, started: float, stopped: float) -> Settlement:
        """Take in how an attempt ended; times are epoch seconds. One that lost its job has nothing to record."""
        settlement = Settlement()
        self._room.let_go(held)
        if held.lost:
            self._over(held, settlement)
            return settlement
        run = Run(
            id=held.envelope.id,
            attempt=held.attempt,
            failures=held.failures,
            crashes=held.crashes,
            max_attempts=held.max_attempts,
            started=started,
            stopped=max(started, stopped),
            outcome=outcome,
        )
        self._record(held, conclude(run, held.traits, crash_limit=self._limits.crash_limit, random=self._random))
        return settlement

    def interrupted(self, held: Held) -> None:
        """Give a started job back that was stopped through no fault of its own."""
        self._give_back(held)

    def attempts(self, cluster: int = 0) -> list[tuple[UUID, int]]:
        """Give every attempt in a cluster that is claimed and has no outcome yet."""
        return [
            (held.envelope.id, held.attempt)
            for held in self._room.taken.values()
            if held.stage in (Stage.READY, Stage.RUNNING) and held.cluster == cluster and not held.lost
        ]

    def lost(self, ids: Collection[UUID]) -> tuple[list[Held], Settlement]:
        """Take in which attempts lost their job; gives those that a child has, which are to be stopped."""
        settlement = Settlement()
        running: list[Held] = []
        for job_id in ids:
            held = self._room.taken.get(job_id)
            if held is None:
                continue
            held.lost = True
            if held.stage is Stage.READY:
                self._ready.remove(held)
                self._room.let_go(held)
                self._over(held, settlement)
            elif held.stage is Stage.RUNNING:
                running.append(held)
        return running, settlement

    def envelope_of(self, job_id: UUID) -> Envelope:
        """Give the envelope of a job that is held."""
        return self._held[job_id].envelope

    def may_run(self, claim: Claimed) -> bool:
        """Tell whether the code here is new enough for a claimed job. The row decides: old code writes messages too."""
        return claim.task_version <= self._held[claim.id].traits.version

    def claimed(self) -> list[Held]:
        """Give the jobs that are claimed, or being claimed, and have no outcome yet; safe from any thread."""
        return list(self._room.taken.values())

    def window_jobs(self) -> int:
        """How many jobs of the present kind are worth having at hand."""
        return self._limits.fitting(self.pace.typical_seconds)

    def prefetch_jobs(self) -> int:
        """How many jobs are worth having at hand: twice the window, but no hoard of slow jobs.

        Those of a cluster that is away are held beside them, so that they keep no others out.
        """
        window = self.window_jobs()
        slots = self._limits.processes
        aside = sum(part.held for part in self._parts if part.away)
        return aside + window + (window if window > slots else min(slots, _MOST_SLOW_AHEAD))

    def drain(self) -> None:
        """Claim nothing from now on, and give back what has not started."""
        self.draining = True
        while self._ready:
            self._give_back(self._ready.popleft())

    def _wait(self, held: Held, *, stranger: bool = False) -> None:
        held.stage = Stage.WAITING
        part = self._parts[held.cluster]
        (part.strangers if stranger else part.waiting[held.envelope.priority]).append(held)

    def _home(self, job_id: UUID) -> int:
        return 0 if self._homes is None else self._homes.of(job_id)

    def _go_home(self, held: Held) -> None:
        self._parts[held.cluster].held -= 1
        held.cluster = self._home(held.envelope.id)
        self._parts[held.cluster].held += 1

    def _claim(self, chosen: Sequence[Held]) -> ClaimRequest:
        self._tokens += 1
        wanted: list[tuple[UUID, int]] = []
        adopt: list[tuple[Envelope, int]] = []
        for held in chosen:
            envelope = held.envelope
            if held.stage is Stage.WAITING:
                held.stage = Stage.CLAIMING
                self._room.take(held)
            wanted.append((envelope.id, -1 if envelope.series is None else envelope.series))
            if envelope.series is None:
                adopt.append((envelope, held.traits.max_attempts))
        return ClaimRequest(worker=self._worker, token=str(self._tokens), wanted=wanted, adopt=adopt)

    def _reject(self, held: Held) -> Settlement:
        settlement = Settlement(reject=list(held.tags))
        held.tags.clear()
        self._room.let_go(held)
        self._over(held, settlement)
        return settlement

    def _start(self, held: Held, claim: Claimed) -> None:
        if held.envelope.id not in self._room.taken:
            # Its cluster was away meanwhile.
            self._room.take(held)
        held.attempt = claim.attempt
        held.failures = claim.failures
        held.crashes = claim.crashes
        held.max_attempts = claim.max_attempts
        held.suspect = claim.suspect
        if not self.may_run(claim):
            self._record(held, too_new(claim, held.envelope.task, held.traits.version, self._clock(), self._random))
        elif claim.suspect and len(self._room.taken) > 1:
            # Its row became suspect after this message was written; the next message says so.
            self._give_back(held)
        elif self.draining:
            self._give_back(held)
        else:
            self._room.exclusive = self._room.exclusive or claim.suspect
            held.stage = Stage.READY
            self._ready.append(held)

    def _give_back(self, held: Held) -> None:
        self._record(held, GivenBack(id=held.envelope.id, attempt=held.attempt))

    def _record(self, held: Held, ending: Ending) -> None:
        self._room.let_go(held)
        held.stage = Stage.ENDING
        self._parts[held.cluster].endings.append(ending)

    def _over(self, held: Held, settlement: Settlement) -> None:
        job_id = held.envelope.id
        del self._held[job_id]
        self._parts[held.cluster].held -= 1
        settlement.ack += held.tags
        for envelope, tag in self._later.pop(job_id, ()):
            self.receive(envelope, tag)


def _halves(items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]
