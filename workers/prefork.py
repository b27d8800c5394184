"""The pool: child processes that get jobs in chunks, and whose death is blamed on the one job that ran."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from billiard.context import ForkContext
from celery.concurrency.base import BasePool

from taskplatform.job import Failed, Failure, Trouble
from taskplatform.telemetry import logger
from workers.child import INTERRUPT, Inheritance, main
from workers.desks import ChildCounter
from workers.floor import Doom, Floor, timed_out
from workers.frames import ChunkFrame, OutcomeFrame, Report, job_frame, outcome_of, pack, unpack_all
from workers.held import Held
from workers.loop import Loop
from workers.slot import Slot

_READ_BYTES = 262_144
_LOOK_SECONDS = 0.02
_STUCK_SECONDS = 0.05
_GRACE_SECONDS = 2.0
_YOUNG_SECONDS = 1.0
_CHUNKS_IN_HAND = 2

_log = logger(__name__)
_REPORT = msgspec.msgpack.Decoder(Report)
_OUTCOME = msgspec.msgpack.Decoder(OutcomeFrame)


@dataclass(slots=True)
class _Chunk:
    number: int
    jobs: list[Held]
    quick: bool
    outcomes: set[int] = field(default_factory=set)
    limit: int = 0
    returned: int | None = None
    doom: tuple[int, Doom] | None = None
    cancelled_at: float | None = None

    def __post_init__(self) -> None:
        self.limit = len(self.jobs)


@dataclass(slots=True)
class _Child:
    process: Any
    socket: socket.socket
    slot: Slot
    counter: ChildCounter
    born: float
    chunks: deque[_Chunk] = field(default_factory=deque)
    incoming: bytearray = field(default_factory=bytearray)
    outgoing: bytearray = field(default_factory=bytearray)
    up: bool = False

    @property
    def fd(self) -> int:
        return self.socket.fileno()

    def running(self) -> list[tuple[UUID, int]]:
        last = [(chunk.jobs, self.slot.started(chunk.number)[0]) for chunk in self.chunks]
        return [(jobs[at].envelope.id, jobs[at].attempt) for jobs, at in last if at >= 0]


class ChunkPool(BasePool):
    """A Celery pool of forked children. Its parent is told of everything by the `floor` that it is given."""

    floor: Floor

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.loop = Loop()
        self._children: list[_Child] = []
        self._chunks = 0
        self._stopping = False
        self._draining = False
        self._look = self.loop.alarm(self._look_around)
        self._births = self.loop.alarm(self._fill)

    def on_start(self) -> None:
        """Fork the children."""
        gc.collect()
        gc.freeze()
        self._fill()

    def on_stop(self) -> None:
        """Let idle children go and kill the others; called when nothing runs that is worth waiting for."""
        self._stopping = True
        self._look.clear()
        self._births.clear()
        for child in self._children:
            if child.chunks:
                os.kill(child.process.pid, signal.SIGKILL)
            self.loop.remove_reader(child.fd)
            self.loop.remove_writer(child.fd)
            child.socket.close()
            child.counter.close()
        for child in self._children:
            child.process.join(_GRACE_SECONDS)
            if child.process.is_alive():
                os.kill(child.process.pid, signal.SIGKILL)
                child.process.join()
        self._children.clear()

    def on_terminate(self) -> None:
        """Kill the children at once."""
        for child in self._children:
            os.kill(child.process.pid, signal.SIGKILL)
        self.on_stop()

    def flush(self) -> None:
        """Keep everything: what is claimed runs on across a lost broker connection."""

    @property
    def responsive(self) -> bool:
        """See Pool."""
        return any(child.up for child in self._children)

    def room(self) -> bool:
        """Whether a child could take a chunk of quick jobs now, or any chunk at all."""
        return any(self._has_room(child, quick=True) for child in self._children)

    def hand_over(self, jobs: list[Held], *, quick: bool) -> bool:
        """Give jobs to a child; False when there is none for them. Only quick ones may wait behind others."""
        free = [child for child in self._children if self._has_room(child, quick=quick)]
        if not free:
            return False
        child = min(free, key=lambda one: len(one.chunks))
        chunk = _Chunk(self._next_number(child), jobs, quick)
        child.slot.open(chunk.number, len(jobs))
        child.chunks.append(chunk)
        self._send(child, pack(ChunkFrame(number=chunk.number, jobs=[job_frame(held) for held in jobs])))
        if not self._look.is_set:
            self._look.set(_LOOK_SECONDS)
        return True

    def stop_job(self, held: Held) -> None:
        """Interrupt a job that lost its row: an exception first, a kill after a grace period."""
        for child, chunk, index in self._places_of(held):
            started, _ = child.slot.started(chunk.number)
            if index == started and chunk.cancelled_at is None:
                chunk.cancelled_at = time.monotonic()
                child.slot.cancel(chunk.number, index)
                os.kill(child.process.pid, INTERRUPT)

    def drain(self) -> None:
        """See Pool."""
        self._draining = True
        for child in self._children:
            child.slot.drain()

    def kill_all(self) -> None:
        """Stop whatever still runs; the jobs are reported as interrupted."""
        for child in self._children:
            if child.chunks:
                self._doom(child, Doom.DRAINED)

    def _next_number(self, child: _Child) -> int:
        # Both halves of the shared memory are used in turn, by the parity of the number.
        self._chunks += 1
        if child.chunks and child.chunks[-1].number % 2 == self._chunks % 2:
            self._chunks += 1
        return self._chunks

    @staticmethod
    def _has_room(child: _Child, *, quick: bool) -> bool:
        if not child.up:
            return False
        if not child.chunks:
            return True
        return (
            quick
            and len(child.chunks) < _CHUNKS_IN_HAND
            and all(chunk.quick and chunk.returned is None and chunk.limit == len(chunk.jobs) for chunk in child.chunks)
        )

    def _places_of(self, held: Held) -> list[tuple[_Child, _Chunk, int]]:
        return [
            (child, chunk, index)
            for child in self._children
            for chunk in child.chunks
            for index, job in enumerate(chunk.jobs)
            if job is held
        ]

    def _fill(self) -> None:
        while not self._stopping and len(self._children) < self.limit:
            self._children.append(self._fork())

    def _fork(self) -> _Child:
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        slot = Slot()
        if self._draining:
            slot.drain()
        counter = ChildCounter(self.loop, self.floor.checkpoints.ask, lambda *attempt: attempt in child.running())
        app = self.app
        given = Inheritance(
            app=app,
            hostname=self.options["initargs"][1],
            socket=theirs,
            checkpoints=counter.theirs,
            slot=slot,
            foreign=[*self.loop.descriptors(), *self._hub_descriptors(), ours.fileno()],
            result_limit_bytes=app.settings.result_limit_bytes,
            traced=bool(app.settings.trace_url),
        )
        process = ForkContext().Process(target=main, args=(given,), name="taskplatform-child")
        process.start()
        theirs.close()
        counter.theirs.close()
        child = _Child(process, ours, slot, counter, time.monotonic())
        self.loop.add_reader(ours.fileno(), lambda: self._readable(child))
        return child

    def _hub_descriptors(self) -> list[int]:
        hub = self.loop.hub
        return [] if hub is None else [*getattr(hub, "readers", ()), *getattr(hub, "writers", ())]

    def _send(self, child: _Child, data: bytes) -> None:
        child.outgoing += data
        self._write(child)

    def _write(self, child: _Child) -> None:
        try:
            while child.outgoing:
                sent = child.socket.send(child.outgoing)
                del child.outgoing[:sent]
        except BlockingIOError:
            self.loop.add_writer(child.fd, lambda: self._write(child))
            return
        except OSError:
            # It died; its end of the line tells.
            child.outgoing.clear()
        self.loop.remove_writer(child.fd)

    def _readable(self, child: _Child) -> None:
        try:
            data = child.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._bury(child)
            return
        child.incoming += data
        for payload in unpack_all(child.incoming):
            self._heard(child, _REPORT.decode(payload))

    def _heard(self, child: _Child, report: Report) -> None:
        match report.kind:
            case "up":
                child.up = True
            case "outcome":
                if report.outcome is not None and child.chunks:
                    chunk = next(one for one in child.chunks if one.number == report.chunk)
                    self._take(chunk, report.outcome)
            case "done":
                chunk = child.chunks.popleft()
                self._collect(child, chunk)
                self._return_rest(chunk)
        self.floor.free()

    def _collect(self, child: _Child, chunk: _Chunk) -> None:
        for record in child.slot.take(chunk.number):
            self._take(chunk, _OUTCOME.decode(record))

    def _take(self, chunk: _Chunk, frame: OutcomeFrame) -> None:
        chunk.outcomes.add(frame.index)
        self.floor.outcome(chunk.jobs[frame.index], outcome_of(frame), frame.started, frame.stopped, frame.seconds)

    def _return_rest(self, chunk: _Chunk) -> None:
        end = len(chunk.jobs) if chunk.returned is None else chunk.returned
        rest = [held for index, held in enumerate(chunk.jobs[:end]) if index not in chunk.outcomes]
        if rest:
            self.floor.unstarted(rest)

    def _bury(self, child: _Child) -> None:
        if child not in self._children:
            return
        self._children.remove(child)
        self.loop.remove_reader(child.fd)
        self.loop.remove_writer(child.fd)
        child.process.join(_GRACE_SECONDS)
        if child.process.is_alive():
            os.kill(child.process.pid, signal.SIGKILL)
            child.process.join()
        while child.chunks:
            chunk = child.chunks.popleft()
            self._collect(child, chunk)
            self._blame(child, chunk)
            self._return_rest(chunk)
        child.socket.close()
        child.counter.close()
        child.slot.close()
        if not self._stopping:
            young = not child.up or time.monotonic() - child.born < _YOUNG_SECONDS
            self._births.set(_YOUNG_SECONDS if young and not child.up else 0.0)
        self.floor.free()

    def _blame(self, child: _Child, chunk: _Chunk) -> None:
        index, since = child.slot.started(chunk.number)
        if index < 0 or index in chunk.outcomes:
            return
        held = chunk.jobs[index]
        seconds = max(time.monotonic() - since, 0.0)
        stopped = time.time()
        chunk.outcomes.add(index)
        if chunk.doom is None:
            died = f"the process that ran it died: {_exit(child.process)}"
            outcome = Failed(failure=Failure(trouble=Trouble.CRASH, message=died))
        elif chunk.doom[0] != index or chunk.doom[1] is Doom.DRAINED:
            self.floor.interrupted(held)
            return
        else:
            outcome = timed_out(held, "killed")
        self.floor.outcome(held, outcome, stopped - seconds, stopped, seconds)

    def _look_around(self) -> None:
        now = time.monotonic()
        for child in list(self._children):
            if child.chunks:
                self._look_at(child, now)
        if any(child.chunks for child in self._children):
            self._look.set(_LOOK_SECONDS)
        self.floor.free()

    def _look_at(self, child: _Child, now: float) -> None:
        if not child.process.is_alive():
            # Somebody it started may hold its socket open.
            self._drain_socket(child)
            self._bury(child)
            return
        chunk = child.chunks[0]
        self._collect(child, chunk)
        index, since = child.slot.started(chunk.number)
        if index < 0 or index in chunk.outcomes:
            return
        held = chunk.jobs[index]
        ran = now - since
        hard = held.hard_limit_seconds
        if hard is not None and ran > hard:
            self._doom(child, Doom.TIMEOUT)
        elif chunk.cancelled_at is not None and held.lost and now - chunk.cancelled_at > _GRACE_SECONDS:
            self._doom(child, Doom.CANCELLED)
        elif ran > _STUCK_SECONDS:
            self._take_back(child, index)

    def _take_back(self, child: _Child, index: int) -> None:
        # In two looks: what was forbidden in the one, the child has surely seen by the next.
        for chunk in child.chunks:
            begin = index + 1 if chunk is child.chunks[0] else 0
            if chunk.returned is not None or begin >= len(chunk.jobs):
                continue
            if chunk.limit == len(chunk.jobs):
                chunk.limit = begin
                child.slot.limit(chunk.number, begin)
            else:
                started, _ = child.slot.started(chunk.number)
                chunk.returned = max(chunk.limit, started + 1)
                self.floor.unstarted(chunk.jobs[chunk.returned :])

    def _doom(self, child: _Child, why: Doom) -> None:
        chunk = child.chunks[0]
        if chunk.doom is None:
            index, _ = child.slot.started(chunk.number)
            for one in child.chunks:
                one.doom = (index if one is chunk else -1, why)
            os.kill(child.process.pid, signal.SIGKILL)

    def _drain_socket(self, child: _Child) -> None:
        try:
            while data := child.socket.recv(_READ_BYTES):
                child.incoming += data
        except OSError:
            pass
        for payload in unpack_all(child.incoming):
            self._heard(child, _REPORT.decode(payload))


def _exit(process: Any) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"exit status {code}"
