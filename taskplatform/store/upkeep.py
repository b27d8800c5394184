"""What retention asks of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from taskplatform.keeping import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How much was made, dropped or forgotten, by kind; `more` says that another round has something to do."""

    counts: Mapping[str, int]
    more: bool


class UpkeepStore(Protocol):
    """What retention asks; any number of dispatchers may ask at once."""

    async def prune(self, policy: Policy, limit: int) -> Pruned:
        """Create the partitions of the coming days, and forget what the policy does not keep.

        At most `limit` rows of a kind go in one transaction; a partition that holds nothing that is kept goes whole.
        What is never forgotten: a job that has not ended and its attempts, an idempotency key whose time is not over,
        and anything that the policy keeps. A crash at any point leaves nothing half-forgotten.
        """
