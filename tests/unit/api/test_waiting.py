"""The waits of many callers are one task's, which belongs to none of them."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID, uuid4

import structlog

from api.waiting import Waiter


class Store:
    """Says of every job that it has ended."""

    position = None

    def __init__(self) -> None:
        self.traces: list[dict[str, Any]] = []

    async def done_among(self, ids: Sequence[UUID], seen: object) -> set[UUID]:
        """Tell all of them."""
        self.traces.append(structlog.contextvars.get_contextvars())
        return set(ids)


def test_looking_for_jobs_is_no_part_of_a_request_that_waits() -> None:
    store = Store()

    with structlog.contextvars.bound_contextvars(trace_id="of a request"):
        ended = asyncio.run(Waiter(cast(Any, store)).wait(uuid4(), 30.0))

    assert (ended, store.traces[0]) == (True, {})
