"""Where an async worker runs its jobs: an event loop in a thread, and threads for what would block it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import uvloop
from celery.exceptions import SoftTimeLimitExceeded

from taskplatform.task import enter_job
from workers.bodies import read_body
from workers.capture import Caught, caught_error, caught_result
from workers.floor import Doom
from workers.frames import job_frame
from workers.held import Held
from workers.registry import Registry
from workers.threads import Threads
from workers.tracing import Tracing

_SLICE_SECONDS = 0.002
_GRACE_SECONDS = 2.0


class Run(msgspec.Struct, eq=False):
    """One job on its way.

    `started` and `give_up_at` are monotonic times, `began` is the epoch time of the start. What is `withdrawn` before
    it starts never starts.
    """

    held: Held
    in_thread: bool = False
    started: float | None = None
    began: float = 0.0
    withdrawn: bool = False
    doom: Doom | None = None
    give_up_at: float = 0.0
    why: BaseException | None = None
    task: asyncio.Task[None] | None = None
    inside: bool = False


class Ended(msgspec.Struct, frozen=True):
    """What became of a run."""

    run: Run
    caught: Caught
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What running jobs takes."""

    registry: Registry
    tracing: Tracing
    result_limit_bytes: int


class Lanes:
    """Runs each job where it belongs: coroutines and inline functions on the loop, everything else in a thread.

    `tell` is called, in any thread, when there is something to take from `ended()`. The other methods belong to one
    thread, which is not the loop's.
    """

    def __init__(self, means: Means, tell: Callable[[], None]) -> None:
        self._coroutines = means.registry.coroutines
        self._inline = means.registry.inline
        self._tracing = means.tracing
        self._result_limit_bytes = means.result_limit_bytes
        self._tell = tell
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="event-loop", daemon=True)
        self._threads: Threads[Run] = Threads(self._run_in_thread)
        self._arrived: deque[Run] = deque()
        self._ended: deque[Ended] = deque()
        self._told = False
        self._telling = False
        self._asked_at = 0.0
        self._answered_at = 0.0

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the loop, unless a job holds it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_GRACE_SECONDS)

    def submit(self, runs: Iterable[Run]) -> None:
        """Start these."""
        for run in runs:
            task = run.held.envelope.task
            if task in self._coroutines or task in self._inline:
                self._arrived.append(run)
            else:
                run.in_thread = True
                self._threads.submit(run)
        if self._arrived:
            self._loop.call_soon_threadsafe(self._begin)

    def cancel(self, run: Run, why: BaseException) -> None:
        """Cancel a coroutine; nothing happens to a job in a thread."""
        self._loop.call_soon_threadsafe(self._cancel, run, why)

    def ended(self) -> Iterator[Ended]:
        """Take what has ended."""
        self._told = False
        while self._ended:
            yield self._ended.popleft()

    def silent_seconds(self, now: float) -> float:
        """Ask the loop for a sign of life, and tell for how long it owes the last one; `now` is monotonic."""
        if self._answered_at >= self._asked_at:
            self._asked_at = now
            self._loop.call_soon_threadsafe(self._answer)
        return now - self._asked_at

    @property
    def thread_id(self) -> int:
        """Which thread the loop runs in."""
        return self._thread.ident or 0

    def _answer(self) -> None:
        self._answered_at = time.monotonic()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _begin(self) -> None:
        until = time.monotonic() + _SLICE_SECONDS
        arrived = self._arrived
        while arrived:
            self._start(arrived.popleft())
            if time.monotonic() > until:
                self._loop.call_soon(self._begin)
                break
        enter_job(None)

    def _start(self, run: Run) -> None:
        if not self._enter(run):
            return
        task = run.held.envelope.task
        try:
            args, kwargs, embed = read_body(run.held.envelope.body)
            if embed and any(embed.values()):
                # Callbacks, chains and chords are Celery's tracer's, which blocks.
                run.in_thread = True
                self._threads.submit(run)
            elif task in self._inline:
                value = self._inline[task](*args, **kwargs)
                self._end_on_loop(run, caught_result(value, self._result_limit_bytes))
            else:
                coroutine = self._coroutines[task](*args, **kwargs)
                # It inherits the context, and with it what current_job() says.
                run.task = self._loop.create_task(self._finish(run, coroutine))
        except BaseException as error:
            # SystemExit and the like end the job, not the loop.
            self._end_on_loop(run, caught_error(error))

    async def _finish(self, run: Run, coroutine: Coroutine[Any, Any, Any]) -> None:
        run.inside = True
        soft = run.held.soft_limit_seconds
        alarm = None if soft is None else self._loop.call_later(soft, self._cancel, run, SoftTimeLimitExceeded())
        try:
            caught = caught_result(await coroutine, self._result_limit_bytes)
        except asyncio.CancelledError as error:
            caught = caught_error(error if run.why is None else _because(run.why, error))
        except BaseException as error:
            caught = caught_error(error)
        if alarm is not None:
            alarm.cancel()
        self._end_on_loop(run, caught)

    def _run_in_thread(self, run: Run) -> None:
        if not self._enter(run):
            return
        try:
            caught = self._tracing.run(job_frame(run.held))
        except BaseException as error:
            caught = caught_error(error)
        enter_job(None)
        self._end(run, caught)
        self._tell_once()

    def _enter(self, run: Run) -> bool:
        # In this order: whoever withdraws does it the other way round, so that one of the two sees the other.
        run.began = time.time()
        run.started = time.monotonic()
        if run.withdrawn:
            return False
        envelope = run.held.envelope
        self._tracing.enter(envelope.id, run.held.attempt, envelope.tenant, envelope.trace)
        return True

    def _cancel(self, run: Run, why: BaseException) -> None:
        if run.task is None or run.task.done():
            return
        if not run.inside:
            # A task that is cancelled before its first step would end without a word.
            self._loop.call_soon(self._cancel, run, why)
        elif run.task.cancel():
            run.why = why

    def _end(self, run: Run, caught: Caught) -> None:
        self._ended.append(Ended(run, caught, time.monotonic() - (run.started or 0.0)))

    def _end_on_loop(self, run: Run, caught: Caught) -> None:
        self._end(run, caught)
        if not self._telling:
            # What else ends in this pass of the loop goes with it.
            self._telling = True
            self._loop.call_soon(self._tell_from_loop)

    def _tell_from_loop(self) -> None:
        self._telling = False
        self._tell_once()

    def _tell_once(self) -> None:
        if not self._told:
            self._told = True
            self._tell()


def _because(why: BaseException, cause: BaseException) -> BaseException:
    try:
        raise why from cause
    except BaseException as error:
        return error
