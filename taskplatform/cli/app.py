"""Every command under its name, and what an error means for the exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.exceptions import TyperException

from taskplatform.cli import (
    archive,
    doctor,
    jobs,
    keys,
    letters,
    processes,
    scaling,
    settings_page,
    shards,
    submitting,
    top,
)
from taskplatform.cli.output import FAILED, INTERRUPTED, UNAVAILABLE, USAGE
from taskplatform.errors import InvalidInput, OutcomeUnknown, Refused, SettingsError, TaskplatformError, Unavailable

Command = tuple[str, Callable[..., Any], str]

COMMANDS: tuple[Command, ...] = (
    ("up", processes.up, "taskplatform up"),
    ("init", processes.init, "TASKPLATFORM_TASK_MODULES=examples.photos taskplatform init"),
    ("api", processes.api, "TASKPLATFORM_API_PORT=8081 taskplatform api"),
    ("worker", processes.worker, "TASKPLATFORM_WORKER_POOL=gpu taskplatform worker"),
    ("dispatcher", processes.dispatcher, "taskplatform dispatcher"),
    ("autoscaler", processes.autoscaler, "TASKPLATFORM_AUTOSCALE_DRIVER=process taskplatform autoscaler"),
    ("scaler-agent", processes.scaler_agent, "taskplatform scaler-agent --project shop --host 0.0.0.0"),
    ("flower", processes.flower, "taskplatform flower"),
    ("exporter", processes.exporter, "TASKPLATFORM_METRICS_PORT=9103 taskplatform exporter"),
    ("submit", submitting.submit, "taskplatform submit documents.terms title=assert --wait"),
    ("submit-many", submitting.submit_many, "taskplatform submit-many jobs.ndjson --key-prefix import-7"),
    ("status", jobs.status, "taskplatform status 01990000-0000-7000-8000-000000000001"),
    ("watch", jobs.watch, "taskplatform watch 01990000-0000-7000-8000-000000000001"),
    ("result", jobs.result, "taskplatform result 01990000-0000-7000-8000-000000000001 --wait"),
    ("ls", jobs.ls, "taskplatform ls --state dead --since 1h"),
    ("cancel", jobs.cancel, "taskplatform cancel 01990000-0000-7000-8000-000000000001"),
    ("top", top.top, "taskplatform top"),
    ("settings", settings_page.settings, "taskplatform settings"),
    ("doctor", doctor.doctor, "taskplatform doctor"),
    ("version", processes.version, "taskplatform version"),
)
GROUPS: tuple[tuple[str, str, tuple[Command, ...]], ...] = (
    (
        "dlq",
        "Dead letters: jobs and messages that ended where somebody has to look.",
        (
            ("ls", letters.ls, "taskplatform dlq ls --reason poison"),
            ("show", letters.show, "taskplatform dlq show 17"),
            ("replay", letters.replay, "taskplatform dlq replay --task photos.thumbnail --dry-run"),
        ),
    ),
    (
        "scale",
        "What the autoscaler decided, directly from the database.",
        (
            ("ls", scaling.ls, "taskplatform scale ls"),
            ("why", scaling.why, "taskplatform scale why default --limit 20"),
        ),
    ),
    (
        "shards",
        "Which Postgres cluster is the home of which shard, directly in the databases.",
        (
            ("ls", shards.ls, "taskplatform shards ls"),
            ("move", shards.move, "taskplatform shards move 128-255 --to 1"),
        ),
    ),
    (
        "archive",
        "Ended jobs that the database no longer keeps, directly in the object store.",
        (
            ("ls", archive.ls, "taskplatform archive ls --since 365d"),
            ("search", archive.search, "taskplatform archive search --tenant acme --state dead --since 90d"),
            ("show", archive.show, "taskplatform archive show 01990000-0000-7000-8000-000000000001"),
            ("off", archive.off, "taskplatform archive off"),
        ),
    ),
    (
        "keys",
        "API keys, directly in the database: for whoever runs the platform.",
        (
            ("create", keys.create, "taskplatform keys create --tenant acme --scope jobs:write --expires 30d"),
            ("ls", keys.ls, "taskplatform keys ls"),
            ("revoke", keys.revoke, "taskplatform keys revoke 0123456789abcdef"),
        ),
    ),
)


def new_app() -> typer.Typer:
    """Make the command line."""
    app = _new_group("Hand in jobs, see what became of them, run the platform.", add_completion=True)
    _add(app, COMMANDS)
    for name, purpose, commands in GROUPS:
        group = _new_group(purpose, add_completion=False)
        _add(group, commands)
        app.add_typer(group, name=name)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command; whatever goes wrong is one line on stderr."""
    try:
        status = typer.main.get_command(new_app()).main(
            args=list(arguments), prog_name="taskplatform", standalone_mode=False
        )
        sys.stdout.flush()
    except TyperException as error:
        return _say(getattr(error, "format_message", error.__str__)(), USAGE)
    except TaskplatformError as error:
        return _say(str(error), _status_of(error))
    except BrokenPipeError:
        _settle_output()
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        _settle_output()
        if sys.flags.dev_mode:
            raise
        line = f"{type(error).__name__}: {error} (python -X dev -m taskplatform.cli … shows where)"
        return _say(line, FAILED)
    return status if isinstance(status, int) else 0


def _new_group(purpose: str, *, add_completion: bool) -> typer.Typer:
    return typer.Typer(
        help=purpose,
        add_completion=add_completion,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def _add(group: typer.Typer, commands: Sequence[Command]) -> None:
    for name, function, example in commands:
        group.command(name, epilog=f"Example: {example}")(function)


def _status_of(error: TaskplatformError) -> int:
    match error:
        case Unavailable() | OutcomeUnknown():
            return UNAVAILABLE
        case SettingsError() | InvalidInput() | Refused():
            return USAGE
        case _:
            return FAILED


def _say(text: str, status: int) -> int:
    line = " ".join(text.split())
    sys.stderr.write(f"taskplatform: {line}\n")
    return status


def _settle_output() -> None:
    # What cannot be written now cannot be at the end either, when Python would complain once more.
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
