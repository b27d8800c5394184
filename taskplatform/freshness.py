"""How far into the logs of the databases a caller has written or seen: a token that travels with requests and answers.

On the wire it is one `cluster=timeline-lsn` for each database cluster, comma-separated, the last in hexadecimal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from taskplatform.errors import InvalidInput

HEADER = "Tp-Seen"
"""The name of the header that carries the token in both directions."""

CLUSTER = 0
"""The number of the one cluster there is."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log of one cluster: `timeline` counts its failovers, `lsn` its bytes."""

    timeline: int
    lsn: int

    def includes(self, other: Position) -> bool:
        """Tell whether whoever has come so far has everything up to `other`.

        Both parts count: what follows `other` in another timeline need not hold what led to it.
        """
        return self.timeline >= other.timeline and self.lsn >= other.lsn

    def joined(self, other: Position) -> Position:
        """Give a position that includes both."""
        return Position(max(self.timeline, other.timeline), max(self.lsn, other.lsn))


START = Position(0, 0)
"""Where nothing has been seen: every position includes it."""

LATEST = Position(2**32, 2**64)
"""What a caller who does not say what it has seen may have seen: no position includes it."""

Seen = Mapping[int, Position]
"""The position in each cluster of which anything was seen."""

_PART = re.compile(r"(\d{1,3})=(\d{1,10})-([0-9A-Fa-f]{1,16})")
_LONGEST = 8192


def read(text: str) -> Seen:
    """Read a token. Raises InvalidInput for one that is none."""
    found: dict[int, Position] = {}
    for part in text.split(",") if len(text) <= _LONGEST else ("",):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise InvalidInput(f"{HEADER} is not one that an answer carried", code="malformed_http")
        cluster, timeline, lsn = int(match[1]), int(match[2]), int(match[3], 16)
        found[cluster] = Position(timeline, lsn).joined(found.get(cluster, START))
    return found


def write(seen: Seen) -> str:
    """Write a token."""
    return ",".join(f"{cluster}={at.timeline}-{at.lsn:X}" for cluster, at in sorted(seen.items()))


def joined(one: Seen, other: Seen) -> Seen:
    """Give what was seen by either."""
    return {**one, **{cluster: at.joined(one.get(cluster, START)) for cluster, at in other.items()}}


class Watermark:
    """The position up to which this process may have written or seen anything; it never goes back."""

    def __init__(self) -> None:
        self.position = START

    def note(self, position: Position) -> None:
        """Remember that something up to `position` was written or seen."""
        self.position = self.position.joined(position)
