"""How long a fault was felt, worked out from when things went well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from tests.ha.faults import Bounds

FELT_SECONDS = 2.0
"""An interruption that is shorter is the ordinary unevenness of the load: its largest batches are that far apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Successes:
    """The times, in epoch seconds, at which submits with and without a key, starts and reads went well."""

    keyed: Sequence[float]
    unkeyed: Sequence[float]
    starts: Sequence[float]
    reads: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """The longest interruption of each in seconds, and how long after the fault the last one that was felt ended."""

    keyed: float
    unkeyed: float
    starts: float
    reads: float
    recovered: float

    def beyond(self, bounds: Bounds) -> list[str]:
        """Name what took longer than is allowed."""
        return [
            f"{field.name}: {getattr(self, field.name):.1f} s, allowed are {getattr(bounds, field.name):g} s"
            for field in fields(Bounds)
            if getattr(self, field.name) > getattr(bounds, field.name)
        ]


def gaps(successes: Successes, begin: float, end: float) -> Gaps:
    """Look at the time from a fault, at `begin`, until `end`, while the load went on."""
    found = {field.name: _intervals(getattr(successes, field.name), begin, end) for field in fields(Bounds)}
    felt = [stop for intervals in found.values() for start, stop in intervals if stop - start > FELT_SECONDS]
    longest = {name: max(stop - start for start, stop in intervals) for name, intervals in found.items()}
    return Gaps(recovered=max(felt, default=begin) - begin, **longest)


def _intervals(times: Sequence[float], begin: float, end: float) -> list[tuple[float, float]]:
    inside = sorted(time for time in times if begin < time < end)
    return list(zip([begin, *inside], [*inside, end], strict=True))
