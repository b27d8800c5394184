"""What the platform sets out to reach against its peers and against itself, and whether a record shows it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from benchmarks.figures import Ratio, Values, ratio
from benchmarks.roster import PEERS, PLATFORM, PLATFORM_ASYNC, STOCK


class Verdict(StrEnum):
    """Whether a bound is met: by the whole interval of 95 %, by the medians alone, or not."""

    YES = "yes"
    BARELY = "within the spread"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one side, by the keys of the record."""

    side: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A row of the table: `ours` divided by the best of `theirs`; less is better where `aim` is below `least`."""

    key: str
    title: str
    ours: Figure
    theirs: tuple[Figure, ...]
    least: float
    aim: float

    @property
    def less_is_better(self) -> bool:
        """Whether a small ratio is a good one."""
        return self.aim < self.least


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A goal with what was measured of it; `against` is the side that the ratio was taken with."""

    title: str
    least: float
    aim: float
    less_is_better: bool
    ours: float
    theirs: float
    against: str
    ratio: Ratio
    reaches_least: Verdict
    reaches_aim: Verdict


def _goal(key: str, title: str, ours: Figure, theirs: Figure, bounds: tuple[float, float]) -> Goal:
    return Goal(key=key, title=title, ours=ours, theirs=(theirs,), least=bounds[0], aim=bounds[1])


_NOOP = "noop_per_s"
_PREFORK, _ASYNC, _STOCK = PLATFORM.key, PLATFORM_ASYNC.key, STOCK.key
DEEP, SHALLOW = "waiting_1m", "waiting_1k"
LONG, SHORT = "finished_10m", "finished_100k"
"""The sides of the measurements at scale: the platform with much, and with little, in its tables."""

GOALS = (
    _goal(
        "noop_prefork_vs_celery_postgres",
        "no-op jobs/s, prefork, 2 processes / Celery + Postgres",
        Figure(_PREFORK, _NOOP),
        Figure(_STOCK, _NOOP),
        (12, 25),
    ),
    _goal(
        "noop_async_vs_celery_postgres",
        "no-op jobs/s, async, 2 processes / Celery + Postgres",
        Figure(_ASYNC, _NOOP),
        Figure(_STOCK, _NOOP),
        (25, 50),
    ),
    _goal(
        "noop_async_vs_dramatiq",
        "no-op jobs/s, async / Dramatiq without results",
        Figure(_ASYNC, _NOOP),
        Figure("dramatiq", _NOOP),
        (1.5, 3),
    ),
    _goal(
        "noop_async_vs_pgqueuer",
        "no-op jobs/s, async / PgQueuer",
        Figure(_ASYNC, _NOOP),
        Figure("pgqueuer", _NOOP),
        (1.5, 3),
    ),
    _goal(
        "noop_prefork_vs_dramatiq_redis",
        "no-op jobs/s, prefork / Dramatiq + Redis",
        Figure(_PREFORK, _NOOP),
        Figure("dramatiq_redis", _NOOP),
        (1.5, 3),
    ),
    _goal(
        "noop_prefork_vs_taskiq_redis",
        "no-op jobs/s, prefork / Taskiq + Redis",
        Figure(_PREFORK, _NOOP),
        Figure("taskiq_redis", _NOOP),
        (2, 4),
    ),
    Goal(
        key="nap_async_vs_best_peer",
        title="20 ms jobs/s, async / the best peer",
        ours=Figure(_ASYNC, "nap_per_s"),
        theirs=tuple(Figure(peer.key, "nap_per_s") for peer in PEERS),
        least=1.5,
        aim=3,
    ),
    _goal(
        "submit_single_vs_celery_loops",
        "single submits/s over HTTP, 16 clients / confirmed Celery loops, one a processor",
        Figure(_PREFORK, "submit_crowd_per_s"),
        Figure(_STOCK, "submit_crowd_per_s"),
        (3, 6),
    ),
    _goal(
        "submit_batch_vs_celery_loop",
        "batch submits/s over HTTP, 100 a request / one confirmed Celery loop",
        Figure(_PREFORK, "submit_bulk_per_s"),
        Figure(_STOCK, "submit_one_per_s"),
        (15, 40),
    ),
    _goal(
        "cpu_prefork_vs_celery_postgres",
        "CPU per job from submit to stored result / Celery + Postgres",
        Figure(_PREFORK, "cpu_s_per_1000"),
        Figure(_STOCK, "cpu_s_per_1000"),
        (0.15, 0.08),
    ),
    _goal(
        "start_p99_vs_celery_postgres",
        "submit to start p99 at 50 jobs/s, over HTTP / Celery directly",
        Figure(_PREFORK, "start_p99_ms"),
        Figure(_STOCK, "start_p99_ms"),
        (1.5, 1.0),
    ),
    _goal(
        "drain_1m_vs_1k_waiting",
        "jobs/s with 1,000,000 waiting / with 1,000",
        Figure(DEEP, "drained_per_s"),
        Figure(SHALLOW, "drained_per_s"),
        (0.9, 0.97),
    ),
    _goal(
        "claim_finish_10m_vs_100k_finished",
        "claim and finish with 10,000,000 finished / with 100,000",
        Figure(LONG, "claim_finish_ms_per_1000"),
        Figure(SHORT, "claim_finish_ms_per_1000"),
        (1.2, 1.05),
    ),
    _goal(
        "worker_rss_vs_celery_postgres",
        "resident memory of a worker with 2 children / Celery + Postgres, RSS added up",
        Figure(_PREFORK, "worker_rss_mib"),
        Figure(_STOCK, "worker_rss_mib"),
        (1.0, 0.8),
    ),
    _goal(
        "worker_pss_vs_celery_postgres",
        "the same, shared pages counted once (PSS)",
        Figure(_PREFORK, "worker_pss_mib"),
        Figure(_STOCK, "worker_pss_mib"),
        (1.0, 0.8),
    ),
)
"""In the order of the table; the keys are those of the JSON file, and stay."""


def standings_of(values: Values) -> dict[str, Standing]:
    """Tell for every goal that was measured how it stands."""
    return {goal.key: found for goal in GOALS if (found := _standing(goal, values)) is not None}


def _standing(goal: Goal, values: Values) -> Standing | None:
    ours = values.get(goal.ours.side, {}).get(goal.ours.key)
    rivals = [(figure.side, many) for figure in goal.theirs if (many := values.get(figure.side, {}).get(figure.key))]
    if not ours or not rivals:
        return None
    best = min if goal.less_is_better else max
    against, theirs = best(rivals, key=lambda rival: statistics.median(rival[1]))
    found = ratio(ours, theirs)
    return Standing(
        title=goal.title,
        least=goal.least,
        aim=goal.aim,
        less_is_better=goal.less_is_better,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        against=against,
        ratio=found,
        reaches_least=verdict(found, goal.least, less_is_better=goal.less_is_better),
        reaches_aim=verdict(found, goal.aim, less_is_better=goal.less_is_better),
    )


def verdict(found: Ratio, bound: float, *, less_is_better: bool) -> Verdict:
    """Judge a ratio by its worse end and by its middle."""
    sign = -1 if less_is_better else 1
    if sign * (found.high if less_is_better else found.low) >= sign * bound:
        return Verdict.YES
    return Verdict.BARELY if sign * found.ratio >= sign * bound else Verdict.NO
