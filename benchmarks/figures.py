"""What several rounds say together: medians with their spread, and ratios with an interval."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import msgspec

_RESAMPLES = 2000
_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure of a side. `compared` says that the platform is divided by each peer."""

    key: str
    title: str
    digits: int = 0
    compared: bool = True


MEASURES = (
    Measure(key="noop_per_s", title="no-op jobs/s"),
    Measure(key="noop_one_a_request_per_s", title="… one a request", compared=False),
    Measure(key="nap_per_s", title="20 ms jobs/s"),
    Measure(key="submit_one_per_s", title="submits/s, one at a time"),
    Measure(key="submit_crowd_per_s", title="… by many clients", compared=False),
    Measure(key="submit_bulk_per_s", title="submits/s, 100 at a time"),
    Measure(key="start_p50_ms", title="start p50 ms", digits=1),
    Measure(key="start_p99_ms", title="start p99 ms", digits=1),
    Measure(key="cpu_s_per_1000", title="CPU s/1,000", digits=2),
    Measure(key="cpu_client_s_per_1000", title="client", digits=2, compared=False),
    Measure(key="cpu_own_s_per_1000", title="own", digits=2, compared=False),
    Measure(key="cpu_servers_s_per_1000", title="servers", digits=2, compared=False),
    Measure(key="idle_cpu_percent", title="idle CPU %", digits=1, compared=False),
    Measure(key="worker_rss_mib", title="worker RSS MiB", compared=False),
    Measure(key="worker_pss_mib", title="worker PSS MiB", compared=False),
    Measure(key="jobs_run_twice", title="run twice", compared=False),
)
"""In the order of the tables; the keys are those of the JSON file, and stay."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One side in one round; `foreign_cpu_percent` is what the machine did for others meanwhile."""

    side: str
    round: int
    foreign_cpu_percent: float
    figures: dict[str, float]


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A median, the least and the most of all rounds."""

    median: float
    low: float
    high: float


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """The platform's median divided by a peer's, with the bootstrap interval of 95 %; equal bounds after one round."""

    ratio: float
    low: float
    high: float


Values = dict[str, dict[str, list[float]]]


def values_of(samples: Sequence[Sample]) -> Values:
    """Gather each side's values of each measure, in the order of the rounds."""
    found: Values = {}
    for sample in samples:
        for key, value in sample.figures.items():
            found.setdefault(sample.side, {}).setdefault(key, []).append(value)
    return found


def spreads_of(values: Values) -> dict[str, dict[str, Spread]]:
    """Give median and spread of each measure of each side."""
    return {
        side: {
            key: Spread(median=statistics.median(many), low=min(many), high=max(many)) for key, many in measures.items()
        }
        for side, measures in values.items()
    }


def ratios_of(values: Values, ours: str) -> dict[str, dict[str, Ratio]]:
    """Divide one side's medians by those of all others, for the measures that both have."""
    if ours not in values:
        return {}
    keys = [measure.key for measure in MEASURES if measure.compared]
    return {
        side: {key: ratio(values[ours][key], theirs[key]) for key in keys if key in theirs and key in values[ours]}
        for side, theirs in values.items()
        if side != ours
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Divide the medians; the interval comes from resampling the rounds of both, always with the same seed."""
    random = Random(_SEED)
    resampled = sorted(_median_again(ours, random) / _median_again(theirs, random) for _ in range(_RESAMPLES))
    return Ratio(
        ratio=statistics.median(ours) / statistics.median(theirs),
        low=resampled[int(_RESAMPLES * 0.025)],
        high=resampled[int(_RESAMPLES * 0.975) - 1],
    )


def _median_again(values: Sequence[float], random: Random) -> float:
    return statistics.median(random.choices(values, k=len(values)))
