"""What is asked of a cache: it may forget anything at any time, and it never fails, it only has nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Kept:
    """A value to keep under a key, for so many seconds at most."""

    key: str
    value: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Claim:
    """What stands under a key; where nothing does, whether it is up to the caller to fill it, and to nobody else."""

    value: bytes | None
    mine: bool


class Cache(Protocol):
    """A shared memory of short-lived values. Each call takes milliseconds, whatever state the cache is in."""

    @property
    def connected(self) -> bool:
        """Whether it could be spoken to last."""

    async def start(self) -> None:
        """Connect, now or as soon as it is there."""

    async def stop(self) -> None:
        """Disconnect."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Give the values of the keys in their order; what is not known is None, and everything while it is away."""

    async def claim(self, key: str) -> Claim:
        """Give the value of a key, or else the right to fill it, which one caller has at a time and for a moment.

        While the cache is away everybody has it.
        """

    def put(self, values: Sequence[Kept]) -> None:
        """Keep values, soon, and give up the rights to fill their keys."""

    def release(self, key: str) -> None:
        """Give up the right to fill a key without filling it."""
