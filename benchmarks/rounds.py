"""Rounds of all sides in turn, kept after each side, so that a run that is cut off can go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.contestant import up
from benchmarks.endured import endured
from benchmarks.figures import Sample
from benchmarks.ground import Ground, private_ground
from benchmarks.measure import Scale, measure
from benchmarks.outcome import Outcome, outcome_of
from benchmarks.processors import Processors
from benchmarks.roster import Entry


@dataclass(slots=True, kw_only=True)
class Rounds:
    """A run that is under way: who takes part, and what was found so far."""

    entries: Sequence[Entry]
    scale: Scale
    keep: Callable[[Outcome], None]
    tell: Callable[[str], None]
    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def resume(self, before: Outcome | None) -> bool:
        """Take over what a run of the same sides and the same scale has found."""
        if before is None or before.scale != asdict(self.scale) or list(before.sides) != [e.key for e in self.entries]:
            return False
        self.samples = list(before.samples)
        self.versions = {key: side.versions for key, side in before.sides.items()}
        return True

    def outcome(self) -> Outcome:
        """Sum up what was found so far."""
        return outcome_of(self.entries, self.scale, self.samples, self.versions, self.failures)

    def go(self, rounds: int, minutes: float) -> bool:
        """Measure what is not measured yet, and keep it after each side; False when the time ends before that."""
        deadline = time.monotonic() + 60 * minutes
        done = {(sample.round, sample.side) for sample in self.samples}
        for number in range(1, rounds + 1):
            order = self.entries if number % 2 else list(reversed(self.entries))
            left = [entry for entry in order if (number, entry.key) not in done]
            if left and not self._round(number, left, deadline):
                return False
        return True

    def _round(self, number: int, left: Sequence[Entry], deadline: float) -> bool:
        # Servers of its own: what the rounds before have left in them, or broke, is gone.
        with private_ground() as ground:
            for entry in left:
                if time.monotonic() > deadline:
                    return False
                self._measure(ground, entry, number)
                self.keep(self.outcome())
        return True

    def _measure(self, ground: Ground, entry: Entry, number: int) -> None:
        started = time.monotonic()
        with endured(f"round {number}, {entry.title}", self.failures, self.tell), up(ground, entry) as side:
            self.versions[entry.key] = side.agent.ready.versions
            before = Processors.now()
            figures = measure(side, self.scale)
            foreign = Processors.now().foreign_percent_since(before)
            self.samples.append(Sample(side=entry.key, round=number, foreign_cpu_percent=foreign, figures=figures))
            self.tell(f"round {number}  {entry.title:<20} {_line(figures)}  ({time.monotonic() - started:.0f} s)")


def _line(figures: dict[str, float]) -> str:
    return (
        f"no-op {figures['noop_per_s']:7,.0f}/s  20 ms {figures['nap_per_s']:6,.0f}/s  "
        f"submit {figures['submit_one_per_s']:6,.0f}/s  start {figures['start_p50_ms']:5.1f} ms  "
        f"CPU {figures['cpu_s_per_1000']:5.2f} s/1,000"
    )
