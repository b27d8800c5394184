"""Runs the demo: starts a platform, hands in the planned jobs over HTTP, follows them, and looks at what they left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import UUID

import httpx2
from rich.console import Console

from examples.demo.plan import whole_plan
from examples.demo.report import show_outcome, showing_progress
from examples.demo.verdict import AttemptSeen, JobSeen, by_task, objections
from taskplatform.client import AttemptView, Client, JobView, call
from taskplatform.embedded import Platform
from taskplatform.job import AttemptEnd
from taskplatform.servers import started
from taskplatform.settings import CONFIG_VARIABLE, Settings, load

PACKS = ("examples.photos", "examples.tables", "examples.documents", "examples.chaos")
_LOOK_SECONDS = 0.25
_PAGE_JOBS = 1000
_READERS = 4


def run(data_dir: Path, within_seconds: float, console: Console) -> int:
    """Run the demo over an emptied `data_dir`, its jobs within that time; gives the exit status.

    Raises ServerError when the platform does not start, and ApiError when it cannot be reached.
    """
    began = datetime.now(UTC)
    output = str(data_dir.absolute() / "output")
    plan = whole_plan(output, Random())
    console.print("Starting a platform for this demo")
    with started(Platform(Settings(data_dir=data_dir, task_modules=PACKS), console.print, fresh=True)) as platform:
        console.print(f"Ready after {_seconds(began, datetime.now(UTC))}")
        with _client_of(platform) as client:
            ids = [handle.id for handle in client.submit_many(call(job.task, **job.arguments) for job in plan)]
            console.print(f"Handed in {len(ids)} jobs over HTTP")
            jobs = _follow(platform, client, ids, within_seconds, console)
            pairs = list(zip(plan, _seen(client, jobs), strict=True))
        ends = [job.ended_at for job in jobs if job.ended_at is not None]
        if ends:
            console.print(f"The first job had ended {_seconds(began, min(ends))} after the start")
        objected = [*objections(pairs), *missing_files(jobs)]
        show_outcome(console, by_task(pairs), objected, output)
    console.print(f"Everything is stopped again after {_seconds(began, datetime.now(UTC))}")
    return 1 if objected else 0


def missing_files(jobs: Iterable[JobView]) -> list[str]:
    """Name the files that results speak of and that are not there in full."""
    missing = []
    for job in jobs:
        if not isinstance(job.result, dict) or "file" not in job.result:
            continue
        path = Path(job.result["file"])
        if not path.is_file() or path.stat().st_size != job.result["bytes"]:
            missing.append(f"{job.task} {job.id}: {path} is missing or cut short")
    return missing


@contextmanager
def _client_of(platform: Platform) -> Iterator[Client]:
    found = load({CONFIG_VARIABLE: str(platform.client_file)})
    key = None if found.api_key is None else found.api_key.get_secret_value()
    # A transport of its own, because the platform is on this machine whatever proxy the environment names.
    with Client(found.api_url, key=key, transport=httpx2.HTTPTransport()) as client:
        yield client


def _follow(
    platform: Platform, client: Client, ids: Sequence[UUID], within_seconds: float, console: Console
) -> list[JobView]:
    deadline = time.monotonic() + within_seconds
    with showing_progress(console) as show:
        while True:
            listed = {job.id: job for job in client.jobs(page_size=_PAGE_JOBS)}
            jobs = [listed.get(job_id) or client.get(job_id) for job_id in ids]
            show(Counter(job.state for job in jobs))
            if all(job.done for job in jobs) or time.monotonic() > deadline:
                return jobs
            platform.watch_once()
            time.sleep(_LOOK_SECONDS)


def _seen(client: Client, jobs: Sequence[JobView]) -> list[JobSeen]:
    with ThreadPoolExecutor(_READERS) as readers:
        attempts = readers.map(client.attempts, [job.id for job in jobs])
        return [
            JobSeen(id=str(job.id), state=job.state, reason=job.reason, attempts=tuple(map(_attempt, its_attempts)))
            for job, its_attempts in zip(jobs, attempts, strict=True)
        ]


def _attempt(attempt: AttemptView) -> AttemptSeen:
    ran = (attempt.ended_at - attempt.started_at).total_seconds() if attempt.ended_at else 0.0
    return AttemptSeen(end=AttemptEnd(attempt.end) if attempt.end else None, run_seconds=ran)


def _seconds(began: datetime, now: datetime) -> str:
    return f"{(now - began).total_seconds():.1f} s"
