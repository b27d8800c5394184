"""A message that is acknowledged too early is gone from the broker; its job is not gone from the platform."""

import pytest

from tests.faults.scene import scene
from tests.fixtures.waiting import eventually
from tests.native.servers import Servers
from tests.native.stack import Programs

JOBS = 60
PROGRAMS = Programs(worker=("-m", "tests.faults.hasty_worker"))


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_jobs_whose_messages_died_with_a_worker_are_brought_back(servers: Servers) -> None:
    with scene(servers, PROGRAMS, worker_processes=1) as here:
        here.submit("faults.nap", JOBS)
        eventually(lambda: here.effects(done=False), within_seconds=20.0)

        here.stack.worker.kill_and_restart()
        held = here.live
        ledger = here.judge()

    assert held > 0
    assert (ledger.terminal, ledger.breaches) == (JOBS, {})
