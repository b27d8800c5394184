"""Commands for dead letters."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from taskplatform.cli.output import FAILED, AsJson, progress, say, show_fields, show_json, show_table
from taskplatform.cli.output import show as show_line
from taskplatform.cli.session import api_client

if TYPE_CHECKING:
    from taskplatform.client import Client, DeadLetterView, LetterFilters

Reason = Annotated[str | None, typer.Option(help="Only letters with this reason, such as poison.")]
Task = Annotated[str | None, typer.Option(help="Only letters of this task.")]


def ls(
    *,
    reason: Reason = None,
    task: Task = None,
    replayed: Annotated[bool, typer.Option("--replayed", help="Only letters that were replayed.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many letters.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters that wait for somebody, the newest first."""
    with api_client() as client:
        filters = _filters(reason, task, replayed=replayed)
        letters = list(islice(client.dead_letters(page_size=min(limit, 1000), **filters), limit))
    if as_json:
        show_json(letters)
    else:
        show_table(("ID", "REASON", "TASK", "JOB", "QUEUE", "CREATED"), map(_row, letters))


def show(
    letter_id: Annotated[int, typer.Argument(help="The letter's number.", metavar="ID")], *, as_json: AsJson = False
) -> None:
    """Print one dead letter whole."""
    with api_client() as client:
        letter = client.dead_letter(letter_id)
    if as_json:
        show_json(letter)
    else:
        show_fields((name, getattr(letter, name)) for name in letter.__slots__)


def replay(
    letter_ids: Annotated[list[int] | None, typer.Argument(help="Numbers of letters.", metavar="[ID]...")] = None,
    *,
    reason: Reason = None,
    task: Task = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be replayed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hand dead letters in again, by number or by filter; never all of them without a filter."""
    if bool(letter_ids) == bool(reason or task):
        raise typer.BadParameter("name letters by number, or give --reason or --task")
    with api_client() as client:
        chosen = letter_ids or [letter.id for letter in client.dead_letters(**_filters(reason, task, replayed=False))]
        if dry_run:
            _report({"would_replay": len(chosen)}, as_json=as_json)
            return
        if not letter_ids and not yes:
            _confirm(len(chosen))
        failed = _replay_all(client, chosen)
    _report({"replayed": len(chosen) - len(failed), "failed": failed}, as_json=as_json)
    if failed:
        raise typer.Exit(FAILED)


def _filters(reason: str | None, task: str | None, *, replayed: bool) -> LetterFilters:
    filters: LetterFilters = {"replayed": replayed}
    if reason is not None:
        filters["reason"] = reason
    if task is not None:
        filters["task"] = task
    return filters


def _row(letter: DeadLetterView) -> tuple[object, ...]:
    return (letter.id, letter.reason, letter.task, letter.job_id, letter.queue, letter.created_at)


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{count} letters would be replayed: say --yes where nobody can be asked")
    typer.confirm(f"Replay {count} dead letters?", abort=True, err=True)


def _replay_all(client: Client, letter_ids: list[int]) -> dict[int, str]:
    from taskplatform.client import NotFound, Rejected

    failed: dict[int, str] = {}
    with progress("Replaying", len(letter_ids)) as show_progress:
        for done, letter_id in enumerate(letter_ids, 1):
            try:
                client.replay(letter_id)
            except (NotFound, Rejected) as error:
                failed[letter_id] = str(error)
            show_progress(done)
    return failed


def _report(figures: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        show_json(figures)
        return
    failed = figures.get("failed")
    if isinstance(failed, dict):
        for letter_id, why in failed.items():
            say(f"letter {letter_id}: {why}")
    show_line(
        ", ".join(f"{name} {value}" for name, value in figures.items() if isinstance(value, int)).replace("_", " ")
    )
