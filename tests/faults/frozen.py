"""A worker is frozen until its job runs elsewhere, then goes on and reports what its attempt came to."""

from __future__ import annotations

import os
import signal

from tests.faults.ledger import Ledger
from tests.faults.scene import Scene, scene
from tests.fixtures.waiting import eventually
from tests.native.part import Part
from tests.native.servers import Servers
from tests.native.stack import Programs

_TAKEN_OVER_SECONDS = 60.0


def freeze_until_taken_over(servers: Servers, programs: Programs | None = None) -> Ledger:
    """Freeze the parent of a worker that runs a job, let another worker take the job over, thaw, and judge."""
    with scene(servers, programs, worker_processes=1) as here:
        here.submit("faults.slow_second")
        eventually(lambda: here.effects(done=False), within_seconds=20.0)
        second = here.stack.new_worker()
        try:
            _take_over(here, here.stack.worker, second)
            return here.judge()
        finally:
            second.stop()


def _take_over(here: Scene, first: Part, second: Part) -> None:
    os.kill(first.process.pid, signal.SIGSTOP)
    try:
        # Its child is not frozen: the attempt is done, and nobody has been told.
        eventually(lambda: here.effects(attempt=1, done=True), within_seconds=20.0)
        second.start()
        second.await_ready()
        eventually(lambda: here.effects(attempt=2, done=False), within_seconds=_TAKEN_OVER_SECONDS)
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    eventually(lambda: here.effects(attempt=2, done=True), within_seconds=20.0)
