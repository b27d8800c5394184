"""What a process knows of the depth of the queues that it fills."""

import asyncio
from collections.abc import Sequence

from taskplatform.backlog import REFRESH_SECONDS, Backlog
from taskplatform.errors import BrokerUnavailable
from taskplatform.freight import Freight
from tests.unit.roles.test_publish import Obliging


class Counting(Obliging):
    """A broker whose queues all have the same depth; None where it does not answer."""

    def __init__(self, depth: int | None = 0) -> None:
        super().__init__()
        self.depth = depth

    async def depths(self, queues: Sequence[str]) -> dict[str, int]:
        if self.depth is None:
            raise BrokerUnavailable("away")
        return dict.fromkeys(queues, self.depth)


async def counted(backlog: Backlog) -> None:
    backlog.refresh()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def taken(backlog: Backlog, most: int = 10) -> int:
    return sum(backlog.take("q") for _ in range(most))


def test_a_queue_takes_up_to_its_limit() -> None:
    assert taken(Backlog(Counting(), 3, Freight())) == 3


def test_a_full_queue_is_counted_again_though_nothing_is_added_to_it() -> None:
    async def scene() -> int:
        now = 0.0
        broker = Counting(depth=3)
        backlog = Backlog(broker, 3, Freight(), clock=lambda: now)
        taken(backlog)
        await counted(backlog)
        now += REFRESH_SECONDS
        await counted(backlog)
        broker.depth = 1
        now += REFRESH_SECONDS
        await counted(backlog)
        return taken(backlog)

    assert asyncio.run(scene()) == 2


def test_a_queue_of_bundles_is_as_full_as_its_jobs_make_it() -> None:
    async def scene() -> int:
        freight = Freight(clock=lambda: 0.0)
        freight.note("q", messages=1, jobs=4)
        backlog = Backlog(Counting(depth=2), 10, freight)
        backlog.take("q")
        await counted(backlog)
        return taken(backlog)

    assert asyncio.run(scene()) == 2


def test_what_was_added_counts_while_the_broker_does_not_answer() -> None:
    async def scene() -> int:
        backlog = Backlog(Counting(depth=None), 3, Freight())
        taken(backlog, 2)
        await counted(backlog)
        return taken(backlog)

    assert asyncio.run(scene()) == 1
