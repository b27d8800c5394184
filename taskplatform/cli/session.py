"""What the commands work with: the settings, the API's client, the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from taskplatform.client import Client
    from taskplatform.settings import Settings
    from taskplatform.store.postgres.store import PostgresStore
    from taskplatform.store.sharded import ShardedStore

T = TypeVar("T")

_QUICK_ATTEMPTS = 4


@contextmanager
def api_client(*, patient: bool = False) -> Iterator[Client]:
    """Give a client of the API that the settings name; a patient one rides out a minute without it.

    Raises SettingsError.
    """
    from taskplatform.client import Client, Effort
    from taskplatform.retry import Retry
    from taskplatform.settings import load

    settings = load()
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    quick = Effort(retry=Retry(max_attempts=_QUICK_ATTEMPTS, backoff_seconds=0.1), patience_seconds=15.0)
    with Client(settings.api_url, key=key, effort=Effort() if patient else quick) as client:
        yield client


def with_store(settings: Settings, work: Callable[[PostgresStore | ShardedStore], Awaitable[T]]) -> T:
    """Run `work` over the store. Raises StoreUnavailable."""
    from taskplatform.wiring import new_store

    async def run() -> T:
        store = new_store(settings)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())
