"""What the machine's processors did, and how much of it was for others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.native.accounting import usage_of

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processors:
    """Processor time since the machine started: in all, not idle, and of this process with all below it."""

    all_seconds: float
    busy_seconds: float
    own_seconds: float

    @classmethod
    def now(cls) -> Self:
        """Read it."""
        ticks = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        total = sum(ticks) / _TICKS_PER_SECOND
        # proc(5): the fourth and fifth are idle, the eighth is what the host gave to other machines.
        idle = (ticks[3] + ticks[4]) / _TICKS_PER_SECOND
        return cls(all_seconds=total, busy_seconds=total - idle, own_seconds=usage_of([os.getpid()]).cpu_seconds)

    def foreign_percent_since(self, before: Self) -> float:
        """Give the share of all processors that others have used since then."""
        busy, own = self.busy_seconds - before.busy_seconds, self.own_seconds - before.own_seconds
        return 100 * max(0.0, busy - own) / max(self.all_seconds - before.all_seconds, 1 / _TICKS_PER_SECOND)
