"""How the command line speaks: JSON for programs, aligned columns for people, progress only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from textwrap import indent
from typing import Annotated, Any, Protocol

import msgspec
import typer

OK = 0
FAILED = 1
USAGE = 2
UNAVAILABLE = 3
INTERRUPTED = 130

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Progress(Protocol):
    """Something that counts."""

    def __call__(self, done: int) -> None:
        """Show how many are done by now."""


def show_json(value: Any) -> None:
    """Print a value as indented JSON."""
    show(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


@contextmanager
def json_list() -> Iterator[Callable[[Any], None]]:
    """Print values as one indented JSON list, each as it comes; it stays open where the block fails."""
    begun = False

    def show_next(value: Any) -> None:
        nonlocal begun
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
        sys.stdout.write(f"{',' if begun else '['}\n{indent(text, '  ')}")
        begun = True

    yield show_next
    show("\n]" if begun else "[]")


def show_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print aligned columns below headings; nothing but the headings when there are no rows."""
    lines = [list(headings), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        show("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print named values, one a line, without those that are not there."""
    for name, value in fields:
        if value not in (None, "", (), [], {}):
            show(f"{name + ':':<14} {_cell(value)}")


def show(*values: Any) -> None:
    """Print values on one line."""
    sys.stdout.write(f"{' '.join(str(value) for value in values)}\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """Tell people something on stderr, where it does not get into the data."""
    sys.stderr.write(f"{line}\n")


def fail(line: str, status: int = FAILED) -> typer.Exit:
    """Say in one line what went wrong, and give what ends the command with that status."""
    say(f"taskplatform: {line}")
    return typer.Exit(status)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """Count on stderr while the block lasts, when that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # What is printed meanwhile goes where it belongs, and not to stderr.
    with Bar(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case list() | tuple() | set() | frozenset():
            return ",".join(str(part) for part in value) or "-"
        case dict():
            return msgspec.json.encode(value).decode()
        case _:
            return str(value)
