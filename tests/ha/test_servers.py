"""The clusters keep every copy that they promise, and go on without a part."""

import asyncio
import os
import signal

import msgspec
import pytest

from tests.faults.platform_api import ask
from tests.ha.servers import HaServers
from tests.ha.stack import HaStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_commits_count_on_one_of_two_standbys(ha: HaServers) -> None:
    primary = ha.postgres.await_primary()
    others = sorted(member.name for member in ha.postgres.members if member is not primary)

    assert ha.postgres.execute("SHOW synchronous_standby_names") == 'ANY 1 ("{}","{}")'.format(*others)


def test_a_patroni_that_is_started_again_goes_on_as_the_leader(ha: HaServers) -> None:
    primary = ha.postgres.await_primary()
    postmaster = primary.postmaster()

    primary.process.kill()
    primary.begin()

    assert ha.postgres.await_primary() is primary
    assert postmaster is not None
    assert primary.postmaster() == postmaster


def test_every_queue_has_three_copies_and_requests_go_round_a_dead_api(ha: HaServers) -> None:
    body = msgspec.json.encode([{"task": "faults.noop", "args": [1]}])

    with HaStack(ha, {"task_modules": ("tests.faults.tasks",), "log_level": "WARNING"}) as stack:
        queues = [f"jobs.default.{name}" for name in ("high", "normal", "low", "dead")]
        copies = {queue: ha.rabbitmq.members(stack.home.name, queue) for queue in queues}
        os.kill(stack.api.process.pid, signal.SIGKILL)
        answers = [asyncio.run(ask(stack, "GET", "/v1/jobs")) for _ in range(20)]
        taken = asyncio.run(ask(stack, "POST", "/v1/jobs:batch", body))

    assert set(map(len, copies.values())) == {3}
    assert len(answers) == 20
    assert taken["items"][0]["id"]
