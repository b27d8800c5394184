"""The files of a record: JSON for programs, Markdown and charts for people, and what the README shows of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.charts import CHARTS, draw
from benchmarks.outcome import Record
from benchmarks.report import goal_table, page

RESULTS = Path(__file__).parent / "results"
LATEST, PARTIAL = "latest", "partial"
_README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"


def load(name: str) -> Record:
    """Read a record, an empty one when there is none."""
    path = RESULTS / f"{name}.json"
    return msgspec.json.decode(path.read_bytes(), type=Record) if path.exists() else Record()


def save(name: str, record: Record) -> None:
    """Write the JSON file alone, as a run does after every step."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    fresh.replace(path)


def publish(name: str, change: Callable[[Record], Record]) -> str:
    """Change one part of a record, judge it anew, write all its files, and give its page."""
    record = change(load(name)).judged()
    save(name, record)
    text = page(record, name)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    if record.comparison is not None:
        for chart in CHARTS:
            (RESULTS / f"{name}-{chart.name}.svg").write_text(draw(chart, record.comparison), encoding="utf-8")
    if name == LATEST:
        _README.write_text(shown_in(_README.read_text(encoding="utf-8"), record), encoding="utf-8")
    return text


def shown_in(readme: str, record: Record) -> str:
    """Put the table of the goals and the first charts between the marks of a README."""
    head, _, rest = readme.partition(_BEGIN)
    _, mark, tail = rest.partition(_END)
    if not mark:
        return readme
    folder = f"benchmarks/results/{LATEST}"
    charts = [f"![{chart.title}]({folder}-{chart.name}.svg)" for chart in CHARTS] if record.comparison else []
    parts = [_BEGIN, goal_table(record), *charts, f"All figures and settings: [{folder}.md]({folder}.md).", _END]
    return head + "\n\n".join(parts) + tail
