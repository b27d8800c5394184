"""Commands about the archive of ended jobs, directly in the object store: for whoever runs the platform."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from taskplatform.cli.output import FAILED, AsJson, progress, say, show_fields, show_json, show_table
from taskplatform.cli.parameters import moment
from taskplatform.errors import SettingsError
from taskplatform.job import State

if TYPE_CHECKING:
    from taskplatform.archive.format import Manifest, Wanted
    from taskplatform.archive.search import Found, Search

Since = Annotated[
    datetime | None, typer.Option(help="Only jobs created since, such as 90d.", parser=moment, metavar="TIME")
]
Until = Annotated[
    datetime | None, typer.Option(help="Only jobs created until, such as 30d.", parser=moment, metavar="TIME")
]


def ls(*, since: Since = None, until: Until = None, as_json: AsJson = False) -> None:
    """List what is in the archive: one line for each day of each Postgres cluster.

    Ends with 1 when something in it is damaged, and with 3 when it cannot be reached.
    """
    from taskplatform.archive.format import Wanted

    search, complaints = _open()
    manifests = asyncio.run(search.manifests(Wanted(since=since, until=until)))
    rows = list(_by_part(manifests))
    if as_json:
        show_json(rows)
    else:
        show_table(("CLUSTER", "PART", "OBJECTS", "JOBS", "BYTES", "LAST ENDED"), (list(row.values()) for row in rows))
    _end(complaints)


def search(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only jobs of this tenant.")] = None,
    task: Annotated[str | None, typer.Option(help="Only jobs of this task.")] = None,
    state: Annotated[State | None, typer.Option(help="Only jobs that ended so.")] = None,
    job_id: Annotated[UUID | None, typer.Option("--id", help="Only the job with this id.", metavar="ID")] = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Search the archive, for at most 10,000 jobs; objects that cannot hold such jobs are not read.

    Ends with 1 when something that had to be read is damaged, and with 3 when the archive cannot be reached.
    """
    from taskplatform.archive.format import Wanted

    wanted = Wanted(id=job_id, tenant=tenant, task=task, state=state, since=since, until=until)
    archive, complaints = _open()
    found, more = asyncio.run(_search(archive, wanted))
    if as_json:
        show_json([_plain(each) for each in found])
    else:
        show_table(_HEADINGS, (_row(each) for each in found))
    if more:
        say(f"taskplatform: there are more than {_MOST_JOBS}: narrow the search")
    _end(complaints)


def show(
    job_id: Annotated[UUID, typer.Argument(help="The job's id.", metavar="ID")], *, as_json: AsJson = False
) -> None:
    """Print a job of the archive with its attempts and its result; exit status 1 when it is not there."""
    archive, complaints = _open()
    record = _plain(asyncio.run(archive.one(job_id)))
    if as_json:
        show_json(record)
    else:
        show_fields(record["job"].items())
        for attempt in record["attempts"]:
            show_fields([("attempt", " ".join(f"{name}={value}" for name, value in attempt.items() if value))])
    _end(complaints)


_MOST_JOBS = 10_000
_HEADINGS = ("ID", "TENANT", "TASK", "STATE", "POOL", "ATTEMPT", "CREATED", "ENDED")


async def _search(archive: Search, wanted: Wanted) -> tuple[list[Found], bool]:
    manifests = await archive.manifests(wanted)
    found: list[Found] = []
    with progress("objects", len(manifests)) as count:
        async with aclosing(archive.jobs(wanted, manifests, count)) as jobs:
            async for each in jobs:
                if len(found) == _MOST_JOBS:
                    return found, True
                found.append(each)
    return found, False


def _open() -> tuple[Search, list[str]]:
    from taskplatform.archive.search import Search
    from taskplatform.settings import load
    from taskplatform.wiring import new_objects

    objects = new_objects(load())
    if objects is None:
        raise SettingsError("there is no archive: set TASKPLATFORM_ARCHIVE_URL")
    complaints: list[str] = []

    def complain(line: str) -> None:
        complaints.append(line)
        say(f"taskplatform: {line}")

    return Search(objects, complain), complaints


def _end(complaints: list[str]) -> None:
    if complaints:
        raise typer.Exit(FAILED)


def _by_part(manifests: Iterable[Manifest]) -> Iterable[dict[str, Any]]:
    parts: dict[tuple[int, str], list[Manifest]] = {}
    for manifest in manifests:
        parts.setdefault((manifest.cluster, manifest.part), []).append(manifest)
    for (cluster, part), of_part in sorted(parts.items()):
        yield {
            "cluster": cluster,
            "part": part,
            "objects": len(of_part),
            "jobs": sum(each.jobs for each in of_part),
            "bytes": sum(each.bytes for each in of_part),
            "last_ended": max(each.last_ended for each in of_part),
        }


def _plain(found: Found) -> dict[str, Any]:
    from taskplatform.archive.format import plain

    return plain(found.line)


def _row(found: Found) -> tuple[object, ...]:
    job = found.job
    return (job.id, job.tenant, job.task, job.state, job.pool, job.attempt, job.created_at, job.ended_at)
