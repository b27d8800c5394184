"""Opens a store for as long as an `async with` statement lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar


class Openable(Protocol):
    """What every store is."""

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Close all connections."""


S = TypeVar("S", bound=Openable)


@asynccontextmanager
async def opened(store: S) -> AsyncIterator[S]:
    """Open a store on the way into `async with`, and close it on the way out."""
    await store.open()
    try:
        yield store
    finally:
        await store.close()
