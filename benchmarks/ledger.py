"""A shared file with one slot a job: when it began last and how often it has run, written by the job itself."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks.places import places

SLOTS = 2**21
_SLOT = struct.Struct("<dII")
_BYTES = SLOTS * _SLOT.size


@dataclass(slots=True)
class Ledger:
    """The file as its reader sees it; it is made empty, and read without a call to anybody."""

    path: Path
    _pages: mmap.mmap = field(init=False)

    def __post_init__(self) -> None:
        with self.path.open("w+b") as file:
            # A file of holes: only what is written takes room.
            file.truncate(_BYTES)
            self._pages = mmap.mmap(file.fileno(), _BYTES)

    def began(self, number: int) -> float:
        """Give when this job ran last, in seconds of the monotonic clock, which all processes share."""
        return float(_SLOT.unpack_from(self._pages, number * _SLOT.size)[0])

    def runs(self, number: int) -> int:
        """Count how often this job has run."""
        return int(_SLOT.unpack_from(self._pages, number * _SLOT.size)[1])

    def first_missing(self, numbers: range) -> int | None:
        """Give the first of these jobs that has not run, None when all have."""
        return next((number for number in numbers if not self.runs(number)), None)

    def last_began(self, numbers: Iterable[int]) -> float:
        """Give when the last of these jobs ran."""
        return max(self.began(number) for number in numbers)


def mark(number: int) -> None:
    """In a job: leave a mark that it runs now."""
    pages = _shared_pages()
    offset = number * _SLOT.size
    _, runs, _ = _SLOT.unpack_from(pages, offset)
    _SLOT.pack_into(pages, offset, time.monotonic(), runs + 1, 0)


@cache
def _shared_pages() -> mmap.mmap:
    with Path(places().ledger).open("r+b") as file:
        return mmap.mmap(file.fileno(), _BYTES)
