"""What goes on while a part of the platform is gone, and what goes on again when it is back."""

import asyncio
from typing import Any

import msgspec
import pytest

from tests.faults.platform_api import ask, show
from tests.faults.scene import Scene, scene
from tests.fixtures.waiting import eventually
from tests.native.servers import Servers

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(150)]


def submit(platform: Scene, **more: Any) -> str:
    """Hand in one job, and give its id."""
    body = msgspec.json.encode({"task": "faults.noop", "args": [1], **more})
    return str(asyncio.run(ask(platform.stack, "POST", "/v1/jobs", body))["id"])


def state(platform: Scene, job: str) -> str:
    return show(platform.stack, [job])[job][0]


def succeeds(platform: Scene, job: str) -> None:
    eventually(lambda: state(platform, job) == "succeeded", within_seconds=60)


def test_without_workers_jobs_are_taken_shown_and_cancelled_and_run_when_one_is_back(servers: Servers) -> None:
    with scene(servers) as platform:
        platform.stack.worker.process.kill()
        kept, dropped = submit(platform), submit(platform)
        assert state(platform, kept) == state(platform, dropped) == "queued"
        asyncio.run(ask(platform.stack, "POST", f"/v1/jobs/{dropped}:cancel"))

        platform.stack.worker.start()
        succeeds(platform, kept)

        assert state(platform, dropped) == "cancelled"
        assert {effect.job for effect in platform.effects(done=False)} == {kept}


def test_without_a_dispatcher_jobs_are_taken_and_run_and_delayed_ones_when_it_is_back(servers: Servers) -> None:
    with scene(servers) as platform:
        platform.stack.dispatcher.process.kill()
        delayed, direct = submit(platform, delay_seconds=0.1), submit(platform)
        succeeds(platform, direct)
        assert state(platform, delayed) == "scheduled"

        platform.stack.dispatcher.start()
        succeeds(platform, delayed)


def test_without_an_api_what_was_taken_runs_in_its_time(servers: Servers) -> None:
    with scene(servers) as platform:
        jobs = [submit(platform, delay_seconds=2), submit(platform)]
        platform.stack.api.process.kill()
        eventually(lambda: platform.live == 0, within_seconds=60)

        platform.stack.api.start()
        platform.stack.api.await_ready()
        assert [state(platform, job) for job in jobs] == ["succeeded"] * 2


def test_without_autoscaler_exporter_and_flower_everything_goes_on(servers: Servers) -> None:
    with scene(servers) as platform:
        gone = [platform.stack.new_autoscaler(), platform.stack.new_exporter(), platform.stack.new_flower()]
        for part in gone:
            part.start()
        try:
            for part in gone:
                part.await_ready()
        finally:
            for part in gone:
                part.process.kill()

        jobs = [submit(platform), submit(platform, delay_seconds=0.1)]
        for job in jobs:
            succeeds(platform, job)
