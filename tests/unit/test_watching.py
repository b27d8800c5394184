"""Counts of everything, and the connections that they are made on."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import pytest

from taskplatform.errors import StoreUnavailable
from taskplatform.store.postgres.watching import COUNT_SECONDS, Watching


class Pool:
    """Lends nothing, and knows for how long it should have."""

    lent_seconds = 0.0

    def link(self, *, within_seconds: float = 0.0) -> AbstractAsyncContextManager[Any]:
        """Fail."""
        self.lent_seconds = within_seconds
        raise StoreUnavailable("away")


def test_a_count_that_takes_too_long_is_ended_by_postgres_before_its_connection_is() -> None:
    pool = Pool()

    with pytest.raises(StoreUnavailable):
        asyncio.run(Watching(cast(Any, pool)).census())

    assert pool.lent_seconds > COUNT_SECONDS
