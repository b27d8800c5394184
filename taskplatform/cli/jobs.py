"""Commands that read and cancel jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, cast
from uuid import UUID

import typer

from taskplatform.cli.ending import show_ending, show_job, why_no_result
from taskplatform.cli.output import FAILED, AsJson, fail, show, show_json, show_table
from taskplatform.cli.parameters import moment, seconds
from taskplatform.cli.session import api_client
from taskplatform.job import State

if TYPE_CHECKING:
    from taskplatform.client import AttemptView, Client, JobFilters, JobView

Id = Annotated[UUID, typer.Argument(help="The job's id.", metavar="ID")]
_LOOK_SECONDS = 1.0


def status(job_id: Id, *, as_json: AsJson = False) -> None:
    """Print a job as it stands."""
    with api_client() as client:
        job = client.get(job_id)
    if as_json:
        show_json(job)
    else:
        show_job(job)


def result(
    job_id: Id,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Wait at most so long.", parser=seconds, metavar="TIME")] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Print the traceback from the worker.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a job's result as JSON; without one the exit status is 1, and stderr says why."""
    with api_client(patient=wait) as client:
        job = client.wait(job_id, timeout) if wait else client.get(job_id)
    raise typer.Exit(show_ending(job, as_json=as_json, traceback=traceback))


def watch(job_id: Id, *, as_json: AsJson = False) -> None:
    """Follow a job until it has ended, a line for everything that happens to it; exit status 0 if it succeeded."""
    with api_client(patient=True) as client:
        job = _follow(client, job_id, quiet=as_json)
        if as_json:
            show_json({"job": job, "attempts": client.attempts(job_id)})
    if job.state is not State.SUCCEEDED:
        raise fail(why_no_result(job))


def ls(
    *,
    state: Annotated[list[State] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    task: Annotated[str | None, typer.Option(help="Only jobs of this task.")] = None,
    pool: Annotated[str | None, typer.Option(help="Only jobs of this pool.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only jobs created since, such as 1h.", parser=moment, metavar="TIME")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many jobs.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    filters = {"state": state or None, "task": task, "pool": pool, "tag": tag, "created_after": since}
    given = cast("JobFilters", {name: value for name, value in filters.items() if value is not None})
    with api_client() as client:
        jobs = list(islice(client.jobs(page_size=min(limit, 1000), **given), limit))
    if as_json:
        show_json(jobs)
    else:
        show_table(_HEADINGS, map(_row, jobs))


def cancel(
    job_ids: Annotated[list[UUID], typer.Argument(help="Ids of jobs.", metavar="ID...")], *, as_json: AsJson = False
) -> None:
    """Cancel jobs; those that have ended stay as they are. Exit status 1 if one of them is not cancelled now."""
    with api_client() as client:
        jobs = [client.cancel(job_id) for job_id in job_ids]
    if as_json:
        show_json(jobs)
    else:
        for job in jobs:
            show(job.id, job.state)
    if any(job.state is not State.CANCELLED for job in jobs):
        raise typer.Exit(FAILED)


_HEADINGS = ("ID", "TASK", "STATE", "POOL", "ATTEMPT", "CREATED", "ENDED")


def _row(job: JobView) -> tuple[object, ...]:
    return (job.id, job.task, job.state, job.pool, job.attempt, job.created_at, job.ended_at)


def _follow(client: Client, job_id: UUID, *, quiet: bool) -> JobView:
    told: set[str] = set()
    seen = None
    job = client.get(job_id)
    while True:
        now = (job.state, job.attempt, job.failures)
        if now != seen and not quiet:
            for line in timeline(job, client.attempts(job_id)):
                if line not in told:
                    told.add(line)
                    show(line)
        if job.done:
            return job
        seen = now
        job = client.wait(job_id, _LOOK_SECONDS)


def timeline(job: JobView, attempts: list[AttemptView]) -> list[str]:
    """Tell what has happened to a job so far, in order; a line that was told once never changes."""
    lines = [f"{_time(job.created_at)}  accepted   {job.task}"]
    for attempt in attempts:
        lines.append(f"{_time(attempt.started_at)}  attempt {attempt.number}  on {attempt.worker}")
        if attempt.end is not None and attempt.ended_at is not None:
            why = f": {attempt.failure.type}: {attempt.failure.message}" if attempt.error is not None else ""
            lines.append(f"{_time(attempt.ended_at)}  attempt {attempt.number}  {attempt.end}{why}")
    if job.done:
        lines.append(f"{_time(job.ended_at)}  {job.state}")
    elif job.due_at is not None and job.state in (State.RETRYING, State.SCHEDULED):
        lines.append(f"{_time(job.due_at)}  due        {job.state}")
    elif job.blocked_on is not None:
        lines.append(f"{' ' * 9}blocked    on {job.blocked_on}")
    return lines


def _time(at: datetime | None) -> str:
    return "        " if at is None else at.astimezone(UTC).strftime("%H:%M:%S")
