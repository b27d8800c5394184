"""A child process of the pool: runs the jobs of each chunk with Celery's tracer, one after the other."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

import msgspec
from celery import Celery, platforms, signals
from celery.exceptions import SoftTimeLimitExceeded

from taskplatform.task import enter_job
from workers.capture import Cancelled, Caught, caught_error
from workers.coroutines import interrupt_coroutine
from workers.desks import ChildDesk
from workers.frames import PREFIX_BYTES, ChunkFrame, JobFrame, OutcomeFrame, Report, pack, size_of
from workers.slot import Slot
from workers.tracing import Tracing

# The stubs know few of its attributes.
_platforms: Any = platforms

INTERRUPT = signal.SIGUSR1
"""Tells a child to look whether its job was cancelled."""

_CHUNK = msgspec.msgpack.Decoder(ChunkFrame)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """What a child gets from its parent; `foreign` are the parent's own descriptors."""

    app: Celery
    hostname: str
    checkpoints: socket.socket
    socket: socket.socket
    slot: Slot
    foreign: Collection[int]
    result_limit_bytes: int
    traced: bool


def main(given: Inheritance) -> None:
    """Run chunks until the parent hangs up."""
    _platforms.set_pdeathsig("SIGKILL")
    _silence(given.foreign)
    runner = Runner(given)
    _prepare_signals(runner)
    signals.worker_process_init.send(sender=given.hostname)
    given.socket.settimeout(None)
    try:
        given.socket.sendall(pack(Report(kind="up")))
        while (payload := _receive(given.socket)) is not None:
            chunk = _CHUNK.decode(payload)
            runner.run(chunk)
            given.socket.sendall(pack(Report(kind="done", chunk=chunk.number)))
            if runner.exhausted:
                break
    except ConnectionError:
        pass
    signals.worker_process_shutdown.send(sender=given.hostname, pid=os.getpid(), exitcode=0)


class Runner:
    """Runs jobs and puts down what became of each."""

    def __init__(self, given: Inheritance) -> None:
        self.exhausted = False
        self._given = given
        desk = ChildDesk(given.checkpoints, given.slot)
        self._tracing = Tracing(given.app, given.hostname, given.result_limit_bytes, desk, traced=given.traced)
        self._chunk = 0
        self._index = -1
        self._armed = False
        self._pid = os.getpid()

    def run(self, chunk: ChunkFrame) -> None:
        """Run what the parent does not take back meanwhile."""
        slot = self._given.slot
        self._chunk = chunk.number
        for index, job in enumerate(chunk.jobs):
            self._index = index
            if self.exhausted or not slot.start(chunk.number, index, time.monotonic()):
                break
            began, started = time.perf_counter(), time.time()
            caught = self._run_one(job)
            if os.getpid() != self._pid:
                # A process that the task forked came back out of it: the line to the parent is not its own.
                os._exit(0)
            seconds = time.perf_counter() - began
            outcome = OutcomeFrame(
                chunk=chunk.number,
                index=index,
                started=started,
                stopped=started + seconds,
                seconds=seconds,
                result=caught.result,
                trouble=caught.trouble,
                error_types=caught.error_types,
                message=caught.message,
                traceback=caught.traceback,
                after_seconds=caught.after_seconds,
            )
            if not slot.record(chunk.number, msgspec.msgpack.encode(outcome)):
                self._given.socket.sendall(pack(Report(kind="outcome", chunk=chunk.number, outcome=outcome)))
        self._index = -1

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Raise Cancelled in the job that runs, if it is the one that was cancelled."""
        if self._armed and self._index == self._given.slot.cancelled(self._chunk):
            self._raise(Cancelled())

    def soft_limit(self, signum: int, frame: FrameType | None) -> None:
        """Raise SoftTimeLimitExceeded in the job that runs."""
        if self._armed:
            self._raise(SoftTimeLimitExceeded())

    @staticmethod
    def _raise(error: BaseException) -> None:
        # Raised inside an event loop, it would reach the job only where the signal happens to find the loop.
        if not interrupt_coroutine(error):
            raise error

    def _run_one(self, job: JobFrame) -> Caught:
        try:
            try:
                self._armed = True
                if job.soft_limit_seconds is not None:
                    signal.setitimer(signal.ITIMER_REAL, max(job.soft_limit_seconds, 0.001))
                return self._tracing.run(job)
            finally:
                self._disarm(job)
        except MemoryError as error:
            # What is left of this process is not to be trusted with another job.
            self.exhausted = True
            return caught_error(error)
        except BaseException as error:
            # SystemExit and the like end the job, not the child. Once more: a signal may have cut the first time short.
            self._disarm(job)
            return caught_error(error)

    def _disarm(self, job: JobFrame) -> None:
        self._armed = False
        if job.soft_limit_seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        enter_job(None)


def _prepare_signals(runner: Runner) -> None:
    for name in ("SIGHUP", "SIGQUIT", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    # A signal to the whole process group is the parent's business. A handler that does nothing, unlike an ignored
    # signal, is not passed on to the programs that jobs start.
    signal.signal(signal.SIGTERM, _nothing)
    signal.signal(signal.SIGINT, _nothing)
    signal.signal(signal.SIGALRM, runner.soft_limit)
    signal.signal(INTERRUPT, runner.interrupt)


def _nothing(signum: int, frame: FrameType | None) -> None:
    pass


def _silence(foreign: Collection[int]) -> None:
    # A child that holds the parent's sockets would keep them open after the parent let go of them. Closing them here
    # would free their numbers, which objects of the parent's still close at their end: they lead nowhere instead.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in foreign:
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.dup2(nowhere, fd, inheritable=False)
    os.close(nowhere)


def _receive(connection: socket.socket) -> bytes | None:
    prefix = _exactly(connection, PREFIX_BYTES)
    return None if prefix is None else _exactly(connection, size_of(prefix))


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    parts = []
    while size > 0:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
