"""What a fault run writes down outside of the platform: the history of the load, the effects of the jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

Line = TypeVar("Line", bound=msgspec.Struct)


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what came back; `ids` has a place for each job, null where it was not accepted.

    Status 0 says that no whole answer was read: what happened is unknown, or nothing where it was not even `sent`.
    `reused` marks a key sent with another body.
    """

    request: int
    numbers: list[int]
    keys: list[str | None]
    payload_sha256: str
    sent_at: float
    answered_at: float
    status: int
    ids: list[str | None]
    sent: bool = True
    reused: bool = False
    error: str = ""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One side effect of a run: it began, or it is done and returns `output`."""

    job: str
    attempt: int
    pid: int
    at: float
    done: bool
    output: dict[str, Any] | None = None


@dataclass(slots=True)
class Journal:
    """A file that lines are only ever added to; whoever dies after `add` leaves the line whole."""

    path: Path
    _descriptor: int = field(init=False)

    def __post_init__(self) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def add(self, line: msgspec.Struct) -> None:
        """Write one line with one call, so that no other writer and no death can cut it."""
        os.write(self._descriptor, msgspec.json.encode(line) + b"\n")

    def sync(self) -> None:
        """Make what was added survive a power cut too."""
        os.fsync(self._descriptor)


def read_lines(path: Path, kind: type[Line]) -> Iterator[Line]:
    """Read a journal back, as far as it is written."""
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield decoder.decode(line)
