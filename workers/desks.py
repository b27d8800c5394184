"""Where a running job hands in its checkpoint: from a child over a line of its own, from an event loop or a thread."""

from __future__ import annotations

import asyncio
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

_MOST_BYTES = 131_072


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
    answer that comes later has the number of a question that nobody asks any more.
    """

    def __init__(self, line: socket.socket, slot: Slot) -> None:
        self._line = line
        self._slot = slot
        self._lock = threading.Lock()
        self._number = 0
        self._pid = os.getpid()

    @property
    def draining(self) -> bool:
        """See Desk."""
        return self._slot.draining

    def ask(self, job: CurrentJob, text: str | None) -> str | None:
        """See Desk."""
        if os.getpid() != self._pid:
            raise TaskplatformError("a process that the task forked keeps no checkpoints")
        with self._lock:
            self._number += 1
            self._line.send(msgspec.msgpack.encode(_Question(self._number, job.id, job.attempt, text)))
            while True:
                packet = self._line.recv(_MOST_BYTES)
                if not packet:
                    raise ConnectionError("the worker is gone")
                told = _TOLD.decode(packet)
                if told.number == self._number:
                    return _text_of(told.reply)

    async def ask_async(self, job: CurrentJob, text: str | None) -> str | None:
        """See Desk."""
        return await asyncio.to_thread(self.ask, job, text)


class ChildCounter:
    """The parent's end of a child's line; `theirs` is the child's."""

    def __init__(self, loop: Loop, ask: Ask) -> None:
        self._loop = loop
        self._ask = ask
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        loop.add_reader(self._ours.fileno(), self._readable)

    def close(self) -> None:
        """Hang up; may be called twice."""
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours.fileno())
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
        question = _QUESTION.decode(packet)
        self._ask(question.job, question.attempt, question.text, partial(self._answer, question.number))

    def _answer(self, number: int, reply: Reply) -> None:
        try:
            self._ours.send(msgspec.msgpack.encode(_Told(number, reply)))
        except OSError:
            # It died, or does not read: what it asked is of no use to anybody.
            self.close()


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
