"""Shows the demo: how far it is, and what became of its jobs; on a terminal live, elsewhere in plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.demo.verdict import TaskLine
from taskplatform import State
from taskplatform.job import TERMINAL


def progress_line(counts: Mapping[State, int]) -> str:
    """Tell in one line how many jobs are done and where the others stand."""
    total = sum(counts.values())
    done = sum(counts.get(state, 0) for state in TERMINAL)
    standing = ", ".join(f"{counts[state]} {state}" for state in State if counts.get(state))
    return f"{done} of {total} done" + (f": {standing}" if standing else "")


@contextmanager
def showing_progress(console: Console) -> Iterator[Callable[[Mapping[State, int]], None]]:
    """Give a function that shows how far the jobs are: a bar on a terminal, elsewhere a line for every change."""
    if not console.is_terminal:
        last = ""

        def tell(counts: Mapping[State, int]) -> None:
            nonlocal last
            if (line := progress_line(counts)) != last:
                console.print(line)
                last = line

        yield tell
        return
    with Progress(BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("", total=None)

        def move(counts: Mapping[State, int]) -> None:
            done = sum(counts.get(state, 0) for state in TERMINAL)
            bar.update(task, total=sum(counts.values()), completed=done, description=progress_line(counts))

        yield move


def outcome_table(lines: Sequence[TaskLine]) -> Table:
    """Lay out one row a task and one for all."""
    table = Table(title="What happened")
    table.add_column("task")
    for title in ("submitted", "succeeded", "retried", "dead", "mean run"):
        table.add_column(title, justify="right")
    for line in lines:
        numbers = (line.submitted, line.succeeded, line.retried, line.dead)
        table.add_row(line.task, *map(str, numbers), _milliseconds(line.mean_run_seconds))
    table.add_section()
    sums = (
        sum(line.submitted for line in lines),
        sum(line.succeeded for line in lines),
        sum(line.retried for line in lines),
        sum(line.dead for line in lines),
    )
    table.add_row("all", *map(str, sums), "")
    return table


def show_outcome(console: Console, lines: Sequence[TaskLine], objections: Sequence[str], output: str) -> None:
    """Print the table, where the files lie, and the verdict with each objection on a line of its own."""
    console.print(outcome_table(lines))
    console.print(f"Output files: {output}", soft_wrap=True, highlight=False, markup=False)
    for objection in objections:
        console.print(f"Wrong: {objection}", soft_wrap=True, highlight=False, markup=False)
    verdict = (
        "Every job ended as it should." if not objections else f"{len(objections)} jobs did not end as they should."
    )
    console.print(verdict, highlight=False)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
