"""What is open while a context lasts."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Opened:
    """Opens itself on the way into `async with`, and closes on the way out."""

    async def open(self) -> None:
        """Connect."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close all connections."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
