"""The chaos pack: shelves that open late, and a killer that refuses outside of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from examples.chaos import ShelfStuckError, busy_shelf, kill_worker, stuck_shelf
from taskplatform import CurrentJob, RetryLater, TaskplatformError
from taskplatform.task import enter_job


@pytest.fixture
def at_attempt() -> Iterator[Callable[[int], None]]:
    yield lambda number: enter_job(CurrentJob(id=UUID(int=1), attempt=number, tenant="test"))
    enter_job(None)


def test_a_stuck_shelf_fails_until_it_opens(at_attempt: Callable[[int], None]) -> None:
    at_attempt(2)
    with pytest.raises(ShelfStuckError, match="stuck at attempt 2"):
        stuck_shelf("for", opens_on_attempt=3)

    at_attempt(3)
    assert stuck_shelf("for", opens_on_attempt=3)["attempt"] == 3


def test_a_busy_shelf_asks_to_come_back_at_a_time_of_its_choice(at_attempt: Callable[[int], None]) -> None:
    at_attempt(1)

    with pytest.raises(RetryLater) as raised:
        busy_shelf("for", opens_on_attempt=2, come_back_seconds=1.5)

    assert raised.value.after_seconds == 1.5


def test_a_killer_kills_nobody_outside_of_a_job() -> None:
    with pytest.raises(TaskplatformError, match="outside of a running job"):
        kill_worker()
