"""What counts as a job that nobody has."""

import asyncio
from typing import Any, cast

from taskplatform.reconciler import Found, Ledger, Missing, least, missing
from taskplatform.store.watching import Owed, WatchStore
from tests.unit.roles.test_backlog import Counting
from tests.unit.roles.test_catalogue import Tasks


class Watch(Tasks):
    """A store that owes 25 jobs of one pool, and has a message of none of them."""

    async def in_outbox(self) -> dict[str, int]:
        return {}

    async def owed(self, age_seconds: float) -> dict[str, Owed]:
        return {"default": Owed(queued=25, running_without_lease=0)}

    async def crews(self) -> list[Any]:
        return []


def test_a_queued_job_with_a_message_anywhere_is_accounted_for() -> None:
    assert missing(Owed(queued=6, running_without_lease=0), Found(outbox=1, broker=2, fetched=3)) == Missing()


def test_queued_jobs_beyond_all_messages_lack_theirs() -> None:
    assert missing(Owed(queued=10, running_without_lease=0), Found(outbox=1, broker=2, fetched=3)).message == 4


def test_a_message_may_carry_many_jobs_until_its_queue_is_empty() -> None:
    owed = Owed(queued=30, running_without_lease=0)

    assert missing(owed, Found(broker=2, most_jobs=10)).message == 10
    assert missing(owed, Found(broker=3, most_jobs=10)).message == 0
    assert missing(owed, Found(most_jobs=10)).message == 30


def test_messages_that_are_there_twice_are_no_debt() -> None:
    assert missing(Owed(queued=1, running_without_lease=0), Found(broker=9)) == Missing()


def test_a_running_job_without_a_lease_lacks_its_worker() -> None:
    assert missing(Owed(queued=0, running_without_lease=2), Found(broker=9)) == Missing(worker=2)


def test_what_was_not_missing_every_time_is_on_its_way() -> None:
    assert least([Missing(message=5, worker=1), Missing(message=2), Missing(message=7, worker=1)]) == Missing(message=2)


def test_a_message_counts_for_as_many_jobs_as_any_was_ever_allowed_to_carry() -> None:
    async def scene() -> list[int]:
        store, broker, seen = Watch("t"), Counting(depth=0), []
        ledger = Ledger(cast(WatchStore, store), broker, ["default"])
        # A message in each of the pool's four queues, the one of dead letters among them.
        for depth, bundle_jobs in ((0, 1), (1, 1), (1, 5), (1, 1), (2, 1)):
            broker.depth, store.bundle_jobs = depth, bundle_jobs
            seen.append((await ledger.look())["default"].missing.message)
        return seen

    assert asyncio.run(scene()) == [25, 21, 5, 5, 0]


def test_a_platform_without_tasks_is_accounted_for() -> None:
    ledger = Ledger(cast(WatchStore, Watch()), Counting(depth=1), ["default"])

    assert asyncio.run(ledger.look())["default"].missing.message == 21
