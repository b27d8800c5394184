"""Who is compared, how each keeps its jobs and results, and how many jobs make a round of seconds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from benchmarks.places import Results
from benchmarks.tasks import BUNDLE_JOBS

PROCESSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantee:
    """What a side keeps; every sentence is about the settings that are measured, on one node of each server."""

    job: str
    worker_killed: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Clients that each submit one job after the other: so many programs, so many lanes in each."""

    processes: int
    lanes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One side. `workers` is how many worker programs are started; `settings` are those of the platform.

    `noops`, `naps`, `paced` and `crowded` are how many jobs a round has of each kind.
    """

    key: str
    title: str
    module: str
    slots: str
    guarantee: Guarantee
    results: Results = Results.POSTGRES
    workers: int = 1
    settings: dict[str, Any] | None = None
    noops: int = 2000
    naps: int = 200
    paced: int = 200
    crowd: Crowd | None = None
    crowded: int = 0
    options: str


_QUORUM = "quorum queue, confirmed"
_DURABLE = "durable queue, confirmed"
_COMMITTED = "committed row"
_REDELIVERED = "redelivered at once"
_IN_POSTGRES = "committed before the ack"
_IN_REDIS = "in Redis, last second at risk"
_CELERY = "prefork, late ack, prefetch 64, no gossip, mingle or events; one confirmed publish after the other"
_DRAMATIQ = "processes 2, threads 8, its default prefetch and middleware; one confirmed publish after the other"
_OURS = Guarantee(job="committed row and quorum queue", worker_killed="run again, fenced", result=_IN_POSTGRES)


_HTTP = "HTTP, 100 jobs a request on 4 connections"

PLATFORM = Entry(
    key="platform",
    title="taskplatform",
    module="benchmarks.peers.platform",
    slots="2 processes",
    guarantee=_OURS,
    settings={"task_modules": ("benchmarks.tasks",), "worker_processes": PROCESSES, "log_level": "WARNING"},
    noops=10_000,
    paced=500,
    crowd=Crowd(processes=1, lanes=16),
    crowded=6000,
    options=f"prefork, default settings; no-op jobs with bundle_jobs={BUNDLE_JOBS}; {_HTTP}",
)
PLATFORM_ASYNC = Entry(
    key="platform_async",
    title="taskplatform, async",
    module="benchmarks.peers.platform",
    slots="2 × 200 coroutines",
    guarantee=_OURS,
    workers=PROCESSES,
    settings={"task_modules": ("benchmarks.async_tasks",), "worker_kind": "async", "log_level": "WARNING"},
    noops=20_000,
    naps=8000,
    paced=500,
    options=f"2 workers of the kind async, default settings; both tasks with bundle_jobs={BUNDLE_JOBS}; {_HTTP}",
)
STOCK = Entry(
    key="celery_postgres",
    title="Celery + Postgres",
    module="benchmarks.peers.stock_celery",
    slots="2 processes",
    guarantee=Guarantee(job=_QUORUM, worker_killed=_REDELIVERED, result=_IN_POSTGRES),
    noops=1000,
    paced=500,
    # A confirmed publish blocks its process, so the crowd is one loop for each processor.
    crowd=Crowd(processes=os.cpu_count() or 1, lanes=1),
    crowded=1500,
    options=_CELERY,
)
PEERS = (
    STOCK,
    Entry(
        key="celery_redis",
        title="Celery + Redis",
        module="benchmarks.peers.stock_celery",
        slots="2 processes",
        guarantee=Guarantee(job=_QUORUM, worker_killed=_REDELIVERED, result=_IN_REDIS),
        results=Results.REDIS,
        options=_CELERY,
    ),
    Entry(
        key="celery",
        title="Celery, no results",
        module="benchmarks.peers.stock_celery",
        slots="2 processes",
        guarantee=Guarantee(job=_QUORUM, worker_killed=_REDELIVERED, result="none"),
        results=Results.NONE,
        options=_CELERY,
    ),
    Entry(
        key="dramatiq_redis",
        title="Dramatiq + Redis",
        module="benchmarks.peers.dramatiq_rabbitmq",
        slots="2 × 8 threads",
        guarantee=Guarantee(job=_DURABLE, worker_killed=_REDELIVERED, result=_IN_REDIS),
        results=Results.REDIS,
        noops=4000,
        naps=1000,
        options=_DRAMATIQ,
    ),
    Entry(
        key="dramatiq",
        title="Dramatiq, no results",
        module="benchmarks.peers.dramatiq_rabbitmq",
        slots="2 × 8 threads",
        guarantee=Guarantee(job=_DURABLE, worker_killed=_REDELIVERED, result="none"),
        results=Results.NONE,
        noops=4000,
        naps=1000,
        options=_DRAMATIQ,
    ),
    Entry(
        key="taskiq_redis",
        title="Taskiq + Redis",
        module="benchmarks.peers.taskiq_rabbitmq",
        slots="2 × 100 coroutines",
        guarantee=Guarantee(job=_QUORUM, worker_killed=_REDELIVERED, result=_IN_REDIS),
        results=Results.REDIS,
        noops=4000,
        naps=2000,
        options="workers 2, prefetch 64, ack when saved, uvloop; 100 confirmed publishes under way",
    ),
    Entry(
        key="pgqueuer",
        title="PgQueuer",
        module="benchmarks.peers.pgqueuer_postgres",
        slots="2 × coroutines",
        guarantee=Guarantee(job=_COMMITTED, worker_killed="run again after 30 s", result="success only"),
        workers=PROCESSES,
        noops=8000,
        naps=4000,
        options="2 workers, batch size 100, durable tables, asyncpg, uvloop; 100 jobs an insert",
    ),
    Entry(
        key="procrastinate",
        title="Procrastinate",
        module="benchmarks.peers.procrastinate_postgres",
        slots="2 × 64 coroutines",
        guarantee=Guarantee(job=_COMMITTED, worker_killed="by a periodic task of one's own", result="success only"),
        workers=PROCESSES,
        noops=1000,
        naps=1000,
        options="2 workers, concurrency 64; 100 jobs an insert on 2 connections",
    ),
)

ENTRIES = (PLATFORM, PLATFORM_ASYNC, *PEERS)
