"""Job pack: statistics over CSV tables."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from io import StringIO
from math import fsum, isfinite
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from examples.outputs import write_whole
from examples.shelf import Shelf, find
from taskplatform import Fail, Retry, task

Name = Annotated[str, Meta(min_length=1, max_length=1000)]
Row = dict[str, str]

PATIENT = Retry(max_attempts=4, backoff_seconds=0.5, max_backoff_seconds=30.0)


@task(name="tables.summary", retry=PATIENT, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def summary(table: Name, column: Name) -> dict[str, object]:
    """Describe one column of numbers; empty cells are counted as missing."""
    cells = _column(_rows(table), column)
    present = _numbers(cells, column)
    return {"table": table, "column": column, "missing": len(cells) - len(present), **described(present)}


@task(name="tables.group_by", retry=PATIENT, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def group_by(table: Name, key: Name, value: Name, output: Name) -> dict[str, object]:
    """Write count, mean and total of the column `value` for each value of `key`, as CSV into the folder `output`."""
    rows = _rows(table)
    pairs = [(name, cell) for name, cell in zip(_column(rows, key), _column(rows, value), strict=True) if cell]
    numbers = _numbers([cell for _, cell in pairs], value)
    groups = grouped(zip((name for name, _ in pairs), numbers, strict=True))
    lines = StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([key, "count", "mean", "total"])
    writer.writerows([name, len(held), statistics.fmean(held), fsum(held)] for name, held in groups.items())
    name = f"{Path(table).stem}-{value}-by-{key}.csv"
    return {"groups": len(groups), **write_whole(output, name, lines.getvalue().encode())}


@task(name="tables.correlation", retry=PATIENT, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def correlation(table: Name, left: Name, right: Name) -> dict[str, object]:
    """Tell how closely two columns of numbers go together (Pearson's r), over the rows that have both."""
    rows = _rows(table)
    both = [(a, b) for a, b in zip(_column(rows, left), _column(rows, right), strict=True) if a and b]
    first = _numbers([a for a, _ in both], left)
    second = _numbers([b for _, b in both], right)
    try:
        r = statistics.correlation(first, second)
    except statistics.StatisticsError as error:
        raise Fail(f"{table}: {left} and {right} cannot be compared: {error}") from error
    return {"table": table, "left": left, "right": right, "rows": len(both), "r": r}


def described(values: Sequence[float]) -> dict[str, object]:
    """Give count, mean, standard deviation of the sample, smallest, quartiles and largest; None where there is none.

    Quartiles are interpolated between the values, with the smallest and the largest as ends.
    """
    if not values:
        return {"count": 0, **dict.fromkeys(("mean", "deviation", "min", "q1", "median", "q3", "max"))}
    lone = len(values) == 1
    q1, median, q3 = [values[0]] * 3 if lone else statistics.quantiles(values, n=4, method="inclusive")
    return {
        "count": len(values),
        "mean": statistics.fmean(values),
        "deviation": None if lone else statistics.stdev(values),
        "min": min(values),
        "q1": q1,
        "median": median,
        "q3": q3,
        "max": max(values),
    }


def grouped(pairs: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """Gather values under their names, in the order of the names."""
    groups: dict[str, list[float]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return dict(sorted(groups.items()))


def _rows(table: str) -> list[Row]:
    with find(Shelf.TABLES, table).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, restval=""))


def _column(rows: Sequence[Row], column: str) -> list[str]:
    known = list(rows[0]) if rows else []
    if column not in known:
        raise Fail(f"no column {column!r}; there are {', '.join(known) or 'none'}")
    return [row[column].strip() for row in rows]


def _numbers(cells: Iterable[str], column: str) -> list[float]:
    return [_number(cell, column) for cell in cells if cell]


def _number(cell: str, column: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        raise Fail(f"column {column!r} holds {cell!r}, which is no number") from None
    if not isfinite(number):
        raise Fail(f"column {column!r} holds {cell!r}, which is no finite number")
    return number
