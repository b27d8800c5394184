"""Commands about the archive of ended jobs, directly in the object store: for whoever runs the platform."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from taskplatform.cli.output import FAILED, AsJson, json_list, progress, say, show_fields, show_json, show_table
from taskplatform.cli.parameters import moment
from taskplatform.errors import SettingsError
from taskplatform.job import State

if TYPE_CHECKING:
    from taskplatform.archive.format import ArchivedJob, Manifest, Wanted
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
    complaints.end()


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
    if as_json:
        with json_list() as show_next:
            more = asyncio.run(_search(archive, wanted, lambda found: _show_plain(found, show_next, complaints)))
    else:
        jobs: list[ArchivedJob] = []
        more = asyncio.run(_search(archive, wanted, lambda found: jobs.append(found.job)))
        show_table(_HEADINGS, map(_row, jobs))
    if more:
        say(f"taskplatform: there are more than {_MOST_JOBS}: narrow the search")
    complaints.end()


def show(
    job_id: Annotated[UUID, typer.Argument(help="The job's id.", metavar="ID")], *, as_json: AsJson = False
) -> None:
    """Print a job of the archive with its attempts and its result; exit status 1 when it is not there."""
    archive, complaints = _open()
    _show_plain(asyncio.run(archive.one(job_id)), show_json if as_json else _show_record, complaints)
    complaints.end()


def off() -> None:
    """Let dispatchers without an archive forget jobs again, as if there had never been one; what is in it stays.

    A dispatcher that still has one says the opposite within the hour.
    """
    from taskplatform.settings import load
    from taskplatform.store.postgres.archiving import end_archiving

    for number, dsn in enumerate(load().cluster_dsns()):
        told = "is no longer on" if end_archiving(dsn) else "was not on"
        say(f"cluster {number}: the archive {told}")


_MOST_JOBS = 10_000
_HEADINGS = ("ID", "TENANT", "TASK", "STATE", "POOL", "ATTEMPT", "CREATED", "ENDED")


class _Complaints:
    def __init__(self) -> None:
        self._any = False

    def __call__(self, line: str) -> None:
        self._any = True
        say(f"taskplatform: {line}")

    def end(self) -> None:
        if self._any:
            raise typer.Exit(FAILED)


async def _search(archive: Search, wanted: Wanted, take: Callable[[Found], None]) -> bool:
    manifests = await archive.manifests(wanted)
    found = 0
    with progress("objects", len(manifests)) as count:
        async with aclosing(archive.jobs(wanted, manifests, count)) as jobs:
            async for each in jobs:
                if found == _MOST_JOBS:
                    return True
                take(each)
                found += 1
    return False


def _open() -> tuple[Search, _Complaints]:
    from taskplatform.archive.search import Search
    from taskplatform.settings import load
    from taskplatform.wiring import new_objects

    objects = new_objects(load())
    if objects is None:
        raise SettingsError("there is no archive: set TASKPLATFORM_ARCHIVE_URL")
    complaints = _Complaints()
    return Search(objects, complaints), complaints


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


def _show_plain(found: Found, show_it: Callable[[dict[str, Any]], None], complaints: _Complaints) -> None:
    from taskplatform.archive.format import Damaged, plain

    try:
        record = plain(found.line)
    except Damaged as error:
        complaints(f"{found.job.id}: damaged: {error}")
    else:
        show_it(record)


def _show_record(record: dict[str, Any]) -> None:
    show_fields(record["job"].items())
    for attempt in record["attempts"]:
        show_fields([("attempt", " ".join(f"{name}={value}" for name, value in attempt.items() if value))])


def _row(job: ArchivedJob) -> tuple[object, ...]:
    return (job.id, job.tenant, job.task, job.state, job.pool, job.attempt, job.created_at, job.ended_at)
