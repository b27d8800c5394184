"""What retention asks of the store, and the store of an archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from taskplatform.keeping import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How much was made, dropped or forgotten, by kind; `more` says that another round has something to do.

    `trouble` is why jobs that are past their time could not be forgotten, "" if nothing was in the way.
    """

    counts: Mapping[str, int]
    more: bool
    trouble: str = ""


class ArchiveBatch(Protocol):
    """Ended jobs on their way into the archive."""

    @property
    def full(self) -> bool:
        """Whether it holds as much as it should."""

    async def add(self, records: Sequence[str]) -> None:
        """Take records in: one JSON text a job, `{"job": …, "attempts": […]}`."""

    async def close(self) -> None:
        """Return when all of it is in the archive for certain. Raises ArchiveUnavailable when that cannot be said."""


class Archive(Protocol):
    """Where ended jobs go before they are forgotten."""

    def begin(self, part: str, sequence: int) -> ArchiveBatch:
        """Begin a batch; one with the same records, part and number as another takes its place."""


class UpkeepStore(Protocol):
    """What retention asks; any number of dispatchers may ask at once."""

    async def prune(self, policy: Policy, limit: int, archive: Archive | None = None) -> Pruned:
        """Create the partitions of the coming days, and forget what the policy does not keep.

        At most `limit` rows of a kind go in one transaction; a partition that holds nothing that is kept goes whole.
        What is never forgotten: a job that has not ended and its attempts, an idempotency key whose time is not over,
        anything that the policy keeps, and a job that the archive, where there is one, has not taken. A crash at any
        point leaves nothing half-forgotten; what the archive got before it, it gets again under the same number.
        """
