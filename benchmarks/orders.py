"""What the program that measures and the agents of the sides say to each other, one JSON document a line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

import msgspec

from benchmarks.storage import Storage


class Work(StrEnum):
    """Which of the two functions a job calls."""

    NOOP = "noop"
    NAP = "nap"


class How(StrEnum):
    """How jobs are handed in; each way waits until the side has confirmed what it was given."""

    EACH = "each"
    BULK = "bulk"
    PACED = "paced"


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """Hand in jobs `first` … `first + count - 1`.

    `lanes` confirmations are awaited at a time, 0 for the side's own choice; `per_second` is the pace of PACED.
    """

    work: Work
    first: int
    count: int
    how: How
    lanes: int = 0
    per_second: float = 50.0


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Count what is stored."""


class Numbers(msgspec.Struct, frozen=True, tag="numbers"):
    """Give the stored numbers."""


Order = Submit | Count | Numbers


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of an agent: how its workers are started, by its own interpreter, and what it is made of."""

    worker: list[str]
    versions: dict[str, str]
    bulk: bool


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When a client submitted first and was done, on the monotonic clock, and the processor time in between."""

    first: float
    last: float
    cpu_seconds: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.last - self.first


class Client(Protocol):
    """Hands jobs to one side."""

    async def one(self, kind: Work, number: int) -> None:
        """Hand in one job, and return when it is safe with the side."""

    async def many(self, kind: Work, numbers: Sequence[int]) -> None:
        """Hand in many jobs in the side's fastest safe way."""


class Peer(Protocol):
    """What the module of a side offers."""

    PACKAGES: tuple[str, ...]
    """Whose versions are shown."""
    WORKER: list[str]
    """Arguments of the interpreter that start its worker."""
    BULK: bool
    """Whether `many` is more than a loop over `one`."""
    LANES: int
    """How many calls of `many` its client can have under way at a time."""

    async def prepare(self) -> None:
        """Make its tables or queues, where its documentation has that done once and by hand."""

    def client(self) -> AbstractAsyncContextManager[Client]:
        """Connect."""

    def storage(self) -> Storage:
        """Give what it has stored; not asked where it stores nothing."""
