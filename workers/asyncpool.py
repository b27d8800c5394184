"""The pool of an async worker: many jobs at once in one process, with their limits, cancellation and drain."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from typing import Any
from uuid import UUID

from celery import signals
from celery.concurrency.base import BasePool
from celery.worker import state as worker_state

from taskplatform.job import Succeeded
from taskplatform.telemetry import logger
from workers.aloop import Ended, Lanes, Means, Run
from workers.capture import Cancelled
from workers.desks import LoopDesk
from workers.floor import Doom, Floor, timed_out
from workers.frames import outcome_of
from workers.held import Held
from workers.loop import Loop
from workers.tracing import Tracing

_LOOK_SECONDS = 0.05
_PULSE_SECONDS = 0.5
_SILENT_SECONDS = 2.0
_GRACE_SECONDS = 2.0

# The stubs do not know what it holds.
_worker_state: Any = worker_state

_log = logger(__name__)


class AsyncPool(BasePool):
    """A Celery pool of coroutines and threads. Its parent is told of everything by the `floor` that it is given.

    A coroutine can be cancelled; a thread cannot be stopped: what it still does after its limit, or after its job was
    lost, is not waited for and counts for nothing.
    """

    floor: Floor

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.loop = Loop()
        self._desk: LoopDesk | None = None
        self._runs: dict[UUID, Run] = {}
        self._watched: dict[UUID, Run] = {}
        self._new: list[Run] = []
        self._left_behind: set[Run] = set()
        self._lanes: Lanes | None = None
        self._responsive = True
        self._look = self.loop.alarm(self._look_around)
        self._pulse = self.loop.alarm(self._feel_pulse)

    def on_start(self) -> None:
        """Start the event loop."""
        app, hostname = self.app, self.options["initargs"][1]
        limit = app.settings.result_limit_bytes
        self._desk = LoopDesk(self.loop, self.floor.checkpoints.ask)
        tracing = Tracing(app, hostname, limit, self._desk, traced=bool(app.settings.trace_url))
        means = Means(registry=app.registry, tracing=tracing, result_limit_bytes=limit)
        self._lanes = Lanes(means, lambda: self.loop.call_soon(self._collect))
        signals.worker_process_init.send(sender=hostname)
        gc.collect()
        gc.freeze()
        self._lanes.start()

    def on_stop(self) -> None:
        """Stop the event loop; called when nothing runs that is worth waiting for."""
        self._look.clear()
        self._pulse.clear()
        if self._lanes is not None:
            self._lanes.stop()
            self._lanes = None
            signals.worker_process_shutdown.send(sender=self.options["initargs"][1], pid=os.getpid(), exitcode=0)

    def on_terminate(self) -> None:
        """Leave everything as it is: the process is about to end."""

    def flush(self) -> None:
        """Keep everything: what is claimed runs on across a lost broker connection."""

    @property
    def responsive(self) -> bool:
        """Whether the event loop turns."""
        return self._responsive

    def room(self) -> bool:
        """Whether one more job may run."""
        return len(self._runs) < self.limit and self._lanes is not None

    def hand_over(self, jobs: list[Held], *, quick: bool) -> bool:
        """Take jobs; False when there is no room for them."""
        if not self.room():
            return False
        if not self._new:
            self.loop.call_soon(self._submit)
        for held in jobs:
            run = Run(held)
            self._runs[held.envelope.id] = run
            self._new.append(run)
            if held.hard_limit_seconds is not None:
                self._watch(run)
        return True

    def stop_job(self, held: Held) -> None:
        """Cancel a job that lost its row."""
        run = self._runs.get(held.envelope.id)
        if run is not None and run.held is held:
            self._stop(run, Doom.CANCELLED)

    def drain(self) -> None:
        """See Pool."""
        if self._desk is not None:
            self._desk.draining = True

    def kill_all(self) -> None:
        """Cancel whatever still runs; the jobs are reported as interrupted."""
        for run in list(self._runs.values()):
            self._stop(run, Doom.DRAINED)

    def _submit(self) -> None:
        new, self._new = self._new, []
        if not self._pulse.is_set:
            self._pulse.set(_PULSE_SECONDS)
        if self._lanes is not None:
            self._lanes.submit(run for run in new if not run.withdrawn)

    def _collect(self) -> None:
        if self._lanes is None:
            return
        for ended in self._lanes.ended():
            run = ended.run
            if self._runs.get(run.held.envelope.id) is run:
                self._forget(run)
                self._report(ended)
            else:
                self._left_behind.discard(run)
        self.floor.free()

    def _report(self, ended: Ended) -> None:
        run = ended.run
        outcome = outcome_of(ended.caught)
        if run.doom is Doom.TIMEOUT:
            outcome = timed_out(run.held, "cancelled")
        elif run.doom is Doom.DRAINED and not isinstance(outcome, Succeeded):
            self.floor.interrupted(run.held)
            return
        self.floor.outcome(run.held, outcome, run.began, run.began + ended.seconds, ended.seconds)

    def _forget(self, run: Run) -> None:
        job_id = run.held.envelope.id
        del self._runs[job_id]
        self._watched.pop(job_id, None)

    def _watch(self, run: Run) -> None:
        self._watched[run.held.envelope.id] = run
        if not self._look.is_set:
            self._look.set(_LOOK_SECONDS)

    def _stop(self, run: Run, why: Doom) -> None:
        run.withdrawn = True
        if run.started is None:
            self._forget(run)
            self.floor.unstarted([run.held])
            return
        if run.doom is not None:
            return
        run.doom = why
        if run.in_thread or self._lanes is None:
            self._leave_behind(run)
        else:
            run.give_up_at = time.monotonic() + _GRACE_SECONDS
            self._watch(run)
            self._lanes.cancel(run, Cancelled())

    def _leave_behind(self, run: Run) -> None:
        held, stopped = run.held, time.time()
        self._forget(run)
        self._left_behind.add(run)
        _log.warning(
            "a job could not be stopped, what it does counts for nothing any more",
            job_id=str(held.envelope.id),
            task=held.envelope.task,
            left_behind=len(self._left_behind),
        )
        if run.doom is Doom.DRAINED:
            self.floor.interrupted(held)
        else:
            self.floor.outcome(held, timed_out(held, "left behind"), run.began, stopped, stopped - run.began)
        if len(self._left_behind) == self.limit:
            _log.error("too many jobs could not be stopped, the worker ends to make room", jobs=self.limit)
            _worker_state.should_stop = 1

    def _look_around(self) -> None:
        now = time.monotonic()
        for run in list(self._watched.values()):
            hard = run.held.hard_limit_seconds
            if run.doom is not None:
                if now > run.give_up_at:
                    self._leave_behind(run)
            elif hard is not None and run.started is not None and now - run.started > hard:
                self._stop(run, Doom.TIMEOUT)
        if self._watched:
            self._look.set(_LOOK_SECONDS)
        self.floor.free()

    def _feel_pulse(self) -> None:
        self._pulse.set(_PULSE_SECONDS)
        lanes = self._lanes
        if lanes is None:
            return
        silent = lanes.silent_seconds(time.monotonic())
        responsive = silent < _SILENT_SECONDS
        if self._responsive and not responsive:
            frame = sys._current_frames().get(lanes.thread_id)
            where = "" if frame is None else "".join(traceback.format_stack(frame, limit=3))
            _log.warning("a job blocks the event loop, no coroutine goes on meanwhile", where=where)
        elif responsive and not self._responsive:
            _log.info("the event loop turns again")
        self._responsive = responsive
