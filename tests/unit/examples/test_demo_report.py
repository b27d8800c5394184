"""What the demo prints: progress in one line, a table with sums, a verdict."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from examples.demo.report import progress_line, show_outcome
from examples.demo.verdict import TaskLine
from taskplatform import State

LINES = [
    TaskLine(task="a.one", submitted=3, succeeded=2, retried=1, dead=1, mean_run_seconds=0.0125),
    TaskLine(task="b.two", submitted=1, succeeded=0, retried=0, dead=1, mean_run_seconds=None),
]


def printed(objections: list[str]) -> str:
    stream = StringIO()
    show_outcome(Console(file=stream, width=100), LINES, objections, "/out")
    return stream.getvalue()


def test_progress_counts_what_is_done_and_names_the_states() -> None:
    counts = {State.SUCCEEDED: 7, State.DEAD: 1, State.RUNNING: 2, State.QUEUED: 0}

    assert progress_line(counts) == "8 of 10 done: 2 running, 7 succeeded, 1 dead"


def test_the_table_has_a_row_a_task_and_the_sums() -> None:
    rows = [line.replace("│", " ").split() for line in printed([]).splitlines()]

    assert ["a.one", "3", "2", "1", "1", "12.5", "ms"] in rows
    assert ["b.two", "1", "0", "0", "1", "-"] in rows
    assert ["all", "4", "2", "1", "2"] in rows


def test_a_good_run_says_so_and_where_the_files_lie() -> None:
    text = printed([])

    assert "Output files: /out" in text
    assert "Every job ended as it should." in text


def test_each_objection_is_printed_whole_even_when_it_is_long() -> None:
    long = "chaos.kill_worker [j1] " + "x" * 200

    text = printed([long])

    assert f"Wrong: {long}\n" in text
    assert "1 jobs did not end as they should." in text
