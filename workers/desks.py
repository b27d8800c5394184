"""Where a running job hands in its checkpoint: from a child over a line of its own, from an event loop or a thread."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from uuid import UUID

import msgspec

from taskplatform.errors import AttemptLost, TaskplatformError
from taskplatform.task import CurrentJob
from workers.checkpoints import Answered, Reply
from workers.loop import Loop
from workers.slot import Slot

Ask = Callable[[UUID, int, str | None, Answered], None]
"""See `Checkpoints.ask`."""
Runs = Callable[[UUID, int], bool]
"""Tells whether a child runs that attempt."""

_MOST_BYTES = 131_072
_BUFFER_BYTES = 262_144


class _Question(msgspec.Struct, array_like=True, frozen=True):
    number: int
    job: UUID
    attempt: int
    text: str | None


class _Told(msgspec.Struct, array_like=True, frozen=True):
    number: int
    reply: Reply


_QUESTION = msgspec.msgpack.Decoder(_Question)
_TOLD = msgspec.msgpack.Decoder(_Told)


class ChildDesk:
    """The child's end of its line; `slot` says whether the worker drains.

    Each packet is one message, so a signal handler that raises in a job which waits here leaves nothing half-read; the
    answer that comes later has the number of a question that nobody asks any more. Of saves that wait for each other
    none follows one that was asked for later.
    """

    def __init__(self, line: socket.socket, slot: Slot) -> None:
        # The code of tasks may have set another default.
        line.settimeout(None)
        self._line = line
        self._slot = slot
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._saved: tuple[UUID | None, int, int] = (None, 0, 0)
        self._pid = os.getpid()

    @property
    def draining(self) -> bool:
        """See Desk."""
        return self._slot.draining

    def ask(self, job: CurrentJob, text: str | None) -> str | None:
        """See Desk."""
        return self._asked(_Question(next(self._numbers), job.id, job.attempt, text))

    async def ask_async(self, job: CurrentJob, text: str | None) -> str | None:
        """See Desk."""
        # Numbered here, in the order of the calls: the threads may get the line in another one.
        return await asyncio.to_thread(self._asked, _Question(next(self._numbers), job.id, job.attempt, text))

    def _asked(self, question: _Question) -> str | None:
        if os.getpid() != self._pid:
            raise TaskplatformError("a process that the task forked keeps no checkpoints")
        with self._lock:
            if question.text is not None:
                job, attempt, number = self._saved
                if (job, attempt) == (question.job, question.attempt) and number > question.number:
                    return None
            self._line.send(msgspec.msgpack.encode(question))
            while True:
                packet = self._line.recv(_MOST_BYTES)
                if not packet:
                    raise ConnectionError("the worker is gone")
                told = _TOLD.decode(packet)
                if told.number == question.number:
                    break
            found = _text_of(told.reply)
            if question.text is not None:
                self._saved = (question.job, question.attempt, question.number)
            return found


class ChildCounter:
    """The parent's end of a child's line; `theirs` is the child's, who asks one question at a time.

    It may speak only of attempts that it `runs`.
    """

    def __init__(self, loop: Loop, ask: Ask, runs: Runs) -> None:
        self._loop = loop
        self._ask = ask
        self._runs = runs
        self._latest = 0
        self._unsent = b""
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, self.theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._ours.setblocking(False)
        loop.add_reader(self._ours.fileno(), self._readable)

    def close(self) -> None:
        """Hang up; may be called twice."""
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours.fileno())
            self._loop.remove_writer(self._ours.fileno())
            self._ours.close()

    def _readable(self) -> None:
        try:
            packet = self._ours.recv(_MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self.close()
            return
        try:
            question = _QUESTION.decode(packet)
        except msgspec.DecodeError:
            # The code of a task wrote this; it must not end the worker.
            self.close()
            return
        self._latest = question.number
        answer = partial(self._answer, question.number)
        if self._runs(question.job, question.attempt):
            self._ask(question.job, question.attempt, question.text, answer)
        else:
            answer(Reply(kept=False))

    def _answer(self, number: int, reply: Reply) -> None:
        # To another question than the last one nobody listens: a signal has interrupted who asked.
        if number == self._latest and self._ours.fileno() >= 0:
            self._unsent = msgspec.msgpack.encode(_Told(number, reply))
            self._write()

    def _write(self) -> None:
        try:
            self._ours.send(self._unsent)
        except BlockingIOError:
            self._loop.add_writer(self._ours.fileno(), self._write)
        except OSError:
            # It died: what it asked is of no use to anybody.
            self.close()
        else:
            self._loop.remove_writer(self._ours.fileno())


class LoopDesk:
    """The desk of an async worker, where jobs run in threads and on an event loop; `loop` is the parent's."""

    def __init__(self, loop: Loop, ask: Ask) -> None:
        self.draining = False
        self._loop = loop
        self._ask = ask

    def ask(self, job: CurrentJob, text: str | None) -> str | None:
        """See Desk."""
        return _text_of(self._asked(job, text).result())

    async def ask_async(self, job: CurrentJob, text: str | None) -> str | None:
        """See Desk."""
        return _text_of(await asyncio.wrap_future(self._asked(job, text)))

    def _asked(self, job: CurrentJob, text: str | None) -> Future[Reply]:
        future: Future[Reply] = Future()

        def answered(reply: Reply) -> None:
            # Its coroutine may have been cancelled.
            if future.set_running_or_notify_cancel():
                future.set_result(reply)

        self._loop.call_soon(lambda: self._ask(job.id, job.attempt, text, answered))
        return future


def _text_of(reply: Reply) -> str | None:
    if reply.trouble:
        raise TaskplatformError(f"the checkpoint cannot be kept: {reply.trouble}")
    if not reply.kept:
        raise AttemptLost("this attempt no longer holds its job")
    return reply.text
