"""Commands that hand in jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec
import typer

from taskplatform.cli.ending import show_ending
from taskplatform.cli.output import FAILED, AsJson, progress, say, show, show_json
from taskplatform.cli.parameters import json_array, named_arguments, seconds
from taskplatform.cli.session import api_client
from taskplatform.errors import InvalidInput
from taskplatform.job import Priority

if TYPE_CHECKING:
    from taskplatform.client import Call, Client, Problem

_SHOWN_PROBLEMS = 10
_LONGEST_HELD_SECONDS = 20.0


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a file of submissions: what `POST /v1/jobs` takes, and the key."""

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    pool: str | None = None
    priority: Priority | None = None
    delay_seconds: float | None = None
    run_at: datetime | None = None
    deadline_seconds: float | None = None
    soft_limit_seconds: float | None = None
    hard_limit_seconds: float | None = None
    max_attempts: int | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None


def submit(
    words: Annotated[
        list[str], typer.Argument(help="The task, then its named arguments.", metavar="TASK [NAME=VALUE]...")
    ],
    *,
    args: Annotated[str, typer.Option(help="Positional arguments, a JSON array.", metavar="JSON")] = "[]",
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key names the same job.")] = None,
    delay: Annotated[
        float | None, typer.Option(help="Run it so much later, such as 90s or 2h.", parser=seconds, metavar="TIME")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Any option of a submission, such as priority=high."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended, and print its result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hand in one job and print its id; with --wait its result.

    A value that is JSON is taken as such, anything else is text.
    """
    task, *named = words
    chosen = {"delay_seconds": delay, "idempotency_key": key} | named_arguments(option or [])
    if isinstance(chosen.get("tags"), str):
        chosen["tags"] = [chosen["tags"]]
    line = _line({**chosen, "task": task, "args": json_array(args), "kwargs": named_arguments(named)})
    with api_client() as client:
        handle = client.send(_call(line), wait_seconds=_LONGEST_HELD_SECONDS if wait else 0.0)
        if wait:
            raise typer.Exit(show_ending(handle.wait(), as_json=as_json))
        if as_json:
            show_json(handle.wait(0))
        else:
            show(handle.id)


def submit_many(
    file: Annotated[
        typer.FileBinaryRead, typer.Argument(help="One JSON object a line, as POST /v1/jobs takes; - is stdin.")
    ],
    *,
    batch_size: Annotated[int, typer.Option(min=1, max=1000, help="Jobs in one request.")] = 500,
    key_prefix: Annotated[
        str | None, typer.Option(help="Key each job by this and its line, so that the command may be run again.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Print the id of each accepted job.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hand in many jobs from a file of JSON lines; lines that are refused are named, the others are accepted."""
    refused: dict[int, str] = {}
    accepted = 0
    with api_client(patient=True) as client, progress("Submitting") as count:
        for numbers, lines in _batches(file, batch_size, key_prefix, refused):
            handles, problems = _submit_batch(client, lines)
            refused |= {numbers[position]: problem.text for position, problem in problems.items()}
            accepted += len(handles)
            count(accepted)
            if ids and not as_json:
                for job_id in handles:
                    show(job_id)
    if as_json:
        show_json({"accepted": accepted, "refused": [{"line": n, "detail": refused[n]} for n in sorted(refused)]})
    else:
        _summarise(accepted, refused)
    if refused:
        raise typer.Exit(FAILED)


def _batches(
    file: Iterable[bytes], batch_size: int, key_prefix: str | None, refused: dict[int, str]
) -> Iterator[tuple[list[int], list[Call[Any]]]]:
    numbered = ((number, text) for number, text in enumerate(file, 1) if text.strip())
    while chunk := list(islice(numbered, batch_size)):
        numbers, calls = [], []
        for number, text in chunk:
            try:
                line = msgspec.json.decode(text, type=Line)
            except msgspec.DecodeError as error:
                refused[number] = str(error)
                continue
            if key_prefix is not None and line.idempotency_key is None:
                line.idempotency_key = f"{key_prefix}-{number}"
            numbers.append(number)
            calls.append(_call(line))
        if calls:
            yield numbers, calls


def _submit_batch(client: Client, calls: list[Call[Any]]) -> tuple[list[UUID], Mapping[int, Problem]]:
    from taskplatform.client import BatchRejected

    try:
        return [handle.id for handle in client.submit_many(calls, batch_size=len(calls))], {}
    except BatchRejected as rejected:
        return [handle.id for handle in rejected.accepted.values()], rejected.problems


def _summarise(accepted: int, refused: Mapping[int, str]) -> None:
    for number in sorted(refused)[:_SHOWN_PROBLEMS]:
        say(f"line {number}: {refused[number]}")
    if len(refused) > _SHOWN_PROBLEMS:
        say(f"… and {len(refused) - _SHOWN_PROBLEMS} more; --json names all")
    say(f"{accepted} accepted, {len(refused)} refused")


def _line(values: Mapping[str, Any]) -> Line:
    try:
        return msgspec.convert(values, Line, str_keys=True)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"bad option: {error}") from None


def _call(line: Line) -> Call[Any]:
    from taskplatform.client import call, named

    chosen = {name: getattr(line, name) for name in Line.__struct_fields__ if name not in ("task", "args", "kwargs")}
    return call(named(line.task, **chosen), *line.args, **line.kwargs)
