"""A record as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.charts import CHARTS
from benchmarks.figures import MEASURES, Measure, Ratio, Spread
from benchmarks.goals import GOALS, Goal, Standing
from benchmarks.outcome import AtScale, Idle, Machine, Outcome, Record

_NONE = "–"


def page(record: Record, name: str) -> str:
    """Write the page; `name` is what the files of the charts begin with."""
    parts = ["# Measured", "## The goals", goal_table(record)]
    if record.comparison is not None:
        parts += _compared_parts(record.comparison, name)
    if record.at_scale is not None:
        parts += _scale_parts(record.at_scale)
    if record.idle is not None:
        parts += idle_part(record.idle)
    return "\n\n".join(parts) + "\n"


def goal_table(record: Record) -> str:
    """Give every goal, what was measured of it, and whether it is reached."""
    head = ("measure", "at least", "aim", "measured", "reaches at least", "reaches aim")
    return _table(head, [_goal_row(goal, record.goals.get(goal.key)) for goal in GOALS])


def _goal_row(goal: Goal, standing: Standing | None) -> Sequence[str]:
    sign = "≤ " if goal.less_is_better else ""
    bounds = (f"{sign}{goal.least:g} ×", f"{sign}{goal.aim:g} ×")
    if standing is None:
        return (goal.title, *bounds, "not measured", _NONE, _NONE)
    title = goal.title if len(goal.theirs) == 1 else f"{goal.title} ({standing.against})"
    return (title, *bounds, f"**{_ratio(standing.ratio)}**", standing.reaches_least, standing.reaches_aim)


def _compared_parts(outcome: Outcome, name: str) -> list[str]:
    rounds = max((sample.round for sample in outcome.samples), default=0)
    return [
        "## Beside its peers",
        f"{outcome.made_at}, rounds: {rounds}, in turn. {_where(outcome.machine)}.{_foreign(outcome)}",
        *(f"**Failed:** {failure}" for failure in outcome.failures),
        "Medians, with the least and the most of all rounds:",
        _table(("", *(measure.title for measure in MEASURES)), _figure_rows(outcome)),
        *_comparison(outcome),
        "What each side keeps:",
        _table(
            ("", "a job is", "its worker is killed", "a result is", "slots", "how it is run", "versions"),
            (
                (
                    *(side.title, side.job, side.worker_killed, side.result, side.slots, side.options),
                    ", ".join(f"{package} {version}" for package, version in side.versions.items()),
                )
                for side in outcome.sides.values()
            ),
        ),
        *(f"![{chart.title}]({name}-{chart.name}.svg)" for chart in CHARTS),
    ]


def _scale_parts(found: AtScale) -> list[str]:
    sizes = "; ".join(f"{name}: {count:,}" for name, count in found.sizes.items())
    keys = sorted({key for spreads in found.spreads.values() for key in spreads})
    rows = [(key, *(_spread(found.spreads[side].get(key), 2) for side in found.spreads)) for key in keys]
    return [
        "## With full tables",
        f"{found.made_at}. {sizes}. {_where(found.machine)}. Medians, with the least and the most of all rounds:",
        *(f"**Failed:** {failure}" for failure in found.failures),
        _table(("", *found.spreads), rows),
    ]


def idle_part(found: Idle) -> list[str]:
    """Show what a platform at rest uses."""
    rows = [
        (part.name, str(part.processes), f"{part.cpu_percent:.2f}", f"{part.rss_mib:.0f}", f"{part.pss_mib:.0f}")
        for part in found.parts
    ]
    total = ("in all", "", f"{found.cpu_percent:.2f}", f"{found.rss_mib:.0f}", f"{found.pss_mib:.0f}")
    return [
        "## At rest",
        f"{found.made_at}. The whole embedded platform without a job, for {found.seconds:.0f} s.",
        "RSS counts a shared page once for every process, PSS once in all.",
        _table(("", "processes", "CPU, % of one", "RSS MiB", "PSS MiB"), [*rows, total]),
    ]


def _where(machine: Machine) -> str:
    processors = f"{machine.processors} processors ({machine.model})"
    return "; ".join((processors, f"{machine.system}, CPython {machine.python}", *machine.servers))


def _foreign(outcome: Outcome) -> str:
    shares = sorted(sample.foreign_cpu_percent for sample in outcome.samples)
    if not shares:
        return ""
    return (
        f" While a side was measured, others used {shares[len(shares) // 2]:.0f} % of the processors in the median and "
        f"{shares[-1]:.0f} % at most."
    )


def _comparison(outcome: Outcome) -> list[str]:
    if not outcome.ratios:
        return []
    head = ("", *(measure.title for measure in _compared()))
    return [
        "The platform (prefork) divided by each other side, with the bootstrap interval of 95 %:",
        _table(head, _ratio_rows(outcome)),
    ]


def _compared() -> list[Measure]:
    return [measure for measure in MEASURES if measure.compared]


def _figure_rows(outcome: Outcome) -> Iterable[Sequence[str]]:
    for key, side in outcome.sides.items():
        spreads = outcome.spreads.get(key, {})
        yield (side.title, *(_spread(spreads.get(measure.key), measure.digits) for measure in MEASURES))


def _ratio_rows(outcome: Outcome) -> Iterable[Sequence[str]]:
    for key, ratios in outcome.ratios.items():
        yield (outcome.sides[key].title, *(_ratio(ratios.get(measure.key)) for measure in _compared()))


def _spread(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return _NONE
    middle = f"{spread.median:,.{digits}f}"
    return middle if spread.low == spread.high else f"{middle} ({spread.low:,.{digits}f}–{spread.high:,.{digits}f})"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return _NONE
    middle = f"{ratio.ratio:.2f}"
    return middle if ratio.low == ratio.high else f"{middle} ({ratio.low:.2f}–{ratio.high:.2f})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("--:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
