"""Makes one answer of what several clusters said."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from taskplatform.autoscale.contract import LiveWorker, Measurement, TaskHistory, TaskLoad
from taskplatform.job import DeadLetter, Job
from taskplatform.overview import Glance, Totals, WorkerNow
from taskplatform.shards import cluster_of_row
from taskplatform.store.contract import LetterFilter
from taskplatform.store.watching import Crew, OutboxState, Owed, Sessions

K = TypeVar("K", bound=Hashable)


def newest_jobs(pages: Iterable[Sequence[Job]], limit: int) -> list[Job]:
    """Merge pages of jobs, each the newest first, by id: where one ends the next page begins in every cluster."""
    return list(islice(heapq.merge(*pages, key=lambda job: job.id, reverse=True), limit))


def newest_letters(pages: Iterable[Sequence[DeadLetter]], limit: int) -> list[DeadLetter]:
    """Merge pages of dead letters, each the newest first, by time; those of one cluster stay in their order."""
    return list(islice(heapq.merge(*pages, key=lambda letter: letter.created_at, reverse=True), limit))


def own_part(wanted: LetterFilter, cluster: int) -> LetterFilter:
    """Give the filter with which one cluster goes on."""
    return replace(wanted, before=tuple(row for row in wanted.before if cluster_of_row(row) == cluster))


def summed(parts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    """Add up counts by key."""
    total: Counter[K] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def glance(parts: Sequence[Glance]) -> Glance:
    """Add up what the clusters count; a worker, which has a lease in each, is as its shortest one says."""
    workers: dict[str, WorkerNow] = {}
    for worker in (worker for part in parts for worker in part.workers):
        before = workers.get(worker.id)
        if before is None or worker.lease_seconds < before.lease_seconds:
            workers[worker.id] = worker
    names = Totals.__struct_fields__
    return Glance(
        at=max(part.at for part in parts),
        workers=sorted(workers.values(), key=lambda worker: (worker.pool, worker.id)),
        outbox=sum(part.outbox for part in parts),
        totals=Totals(**{name: sum(getattr(part.totals, name) for part in parts) for name in names}),
        versions=_versions(parts),
    )


def measurement(parts: Sequence[Measurement]) -> Measurement:
    """Add up what the clusters measured, by the clock and with the used hours of the first."""
    loads: dict[tuple[str, str], TaskLoad] = {}
    histories: dict[tuple[str, str], TaskHistory] = {}
    for part in parts:
        for load in part.loads:
            known = loads.get((load.pool, load.task))
            loads[load.pool, load.task] = load if known is None else _both_loads(known, load)
        for history in part.histories:
            before = histories.get((history.pool, history.task))
            histories[history.pool, history.task] = history if before is None else _both_histories(before, history)
    return Measurement(
        at=parts[0].at,
        loads=[loads[key] for key in sorted(loads)],
        histories=list(histories.values()),
        workers=workers([part.workers for part in parts]),
        used_hours=parts[0].used_hours,
    )


def workers(parts: Iterable[Sequence[LiveWorker]]) -> list[LiveWorker]:
    """Give each worker once, with all that it runs."""
    found: dict[str, LiveWorker] = {}
    for worker in (worker for part in parts for worker in part):
        known = found.get(worker.name)
        found[worker.name] = (
            worker
            if known is None
            else replace(
                known,
                running=known.running + worker.running,
                longest_run_seconds=max(known.longest_run_seconds, worker.longest_run_seconds),
            )
        )
    return list(found.values())


def outbox(parts: Sequence[OutboxState]) -> OutboxState:
    """Add up what waits in the outboxes."""
    return OutboxState(
        rows=sum(part.rows for part in parts),
        jobs=sum(part.jobs for part in parts),
        oldest_seconds=max(part.oldest_seconds for part in parts),
    )


def crews(parts: Iterable[Sequence[Crew]]) -> list[Crew]:
    """Count workers as the cluster does that has the most of them: one that just came may not have a lease in each."""
    found: dict[tuple[str, bool], Crew] = {}
    for crew in (crew for part in parts for crew in part):
        known = found.get((crew.pool, crew.draining))
        if known is None or crew.workers > known.workers:
            found[crew.pool, crew.draining] = crew
    return list(found.values())


def sessions(parts: Sequence[Sessions]) -> Sessions:
    """Add up the sessions."""
    return Sessions(
        by_state=summed(part.by_state for part in parts),
        oldest_transaction_seconds=max(part.oldest_transaction_seconds for part in parts),
    )


def owed(parts: Sequence[Mapping[str, Owed]]) -> dict[str, Owed]:
    """Add up what somebody must have, by pool."""
    queued = summed({pool: each.queued for pool, each in part.items()} for part in parts)
    running = summed({pool: each.running_without_lease for pool, each in part.items()} for part in parts)
    return {pool: Owed(queued=queued[pool], running_without_lease=running[pool]) for pool in queued}


def _versions(parts: Sequence[Glance]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for running in (part.versions for part in parts):
        for name, versions in running.items():
            found.setdefault(name, set()).update(versions)
    return {name: sorted(versions) for name, versions in found.items()}


def _both_loads(one: TaskLoad, other: TaskLoad) -> TaskLoad:
    return replace(
        one,
        ready=one.ready + other.ready,
        running=one.running + other.running,
        oldest_age_seconds=max(one.oldest_age_seconds, other.oldest_age_seconds),
        running_seconds=one.running_seconds + other.running_seconds,
        arrived=one.arrived + other.arrived,
    )


def _both_histories(one: TaskHistory, other: TaskHistory) -> TaskHistory:
    return replace(
        one,
        ended=one.ended + other.ended,
        failed=one.failed + other.failed,
        seconds=one.seconds + other.seconds,
        longest_seconds=max(one.longest_seconds, other.longest_seconds),
    )
