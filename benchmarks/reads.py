"""`make bench-reads`: what reading an ended job costs, from Postgres and from the cache, over HTTP and below it."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, cycle
from uuid import UUID

import uvloop

from taskplatform.cache.redis import RedisCache
from taskplatform.freshness import LATEST, Watermark
from taskplatform.ids import Locator, new_job_id
from taskplatform.job import AttemptEnd, NewJob, State
from taskplatform.lookups import Cached, Direct, Lookups
from taskplatform.servers import Redis, free_ports, started
from taskplatform.store.opening import opened
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.store.postgres.work import PostgresWorkStore
from taskplatform.store.working import ClaimRequest, Ended
from taskplatform.telemetry import new_metrics
from tests.native.accounting import usage_of
from tests.native.servers import Servers, private_servers
from tests.native.stack import Stack
from tests.native.wire import Connection

HEAD = """\
| read | at once | reads/s | reader, µs | Postgres, µs | Redis, µs | in all, µs of CPU |
|---|--:|--:|--:|--:|--:|--:|"""

_TENANT = "default"
_JOBS = 200
_READERS = (1, 16)
_RESULT = f'{{"text":"{"x" * 500}"}}'
_PATIENT_SECONDS = 1.0

Read = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What so many readers at once got: reads a second, and microseconds of processor time per read by who used it."""

    name: str
    readers: int
    per_second: float
    reader: float
    postgres: float
    redis: float

    @property
    def line(self) -> str:
        """A row of the table under HEAD."""
        used = (self.reader, self.postgres, self.redis, self.reader + self.postgres + self.redis)
        cells = " | ".join(f"{value:.0f}" for value in (self.readers, self.per_second, *used))
        return f"| {self.name} | {cells} |"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The servers, and for how long each figure is measured."""

    servers: Servers
    redis: Redis
    seconds: float

    async def figure(self, name: str, reader: int, reads: Sequence[Read]) -> Figure:
        """Read with so many readers at once; `reader` is the process that answers them."""
        pids = (reader, self.servers.postgres.process.pid, self.redis.process.pid)
        # Whatever is read is in the cache by then.
        for _ in range(_JOBS):
            await reads[0]()
        await self._read(reads, self.seconds / 8)
        before = [usage_of([pid]).cpu_seconds for pid in pids]
        began = time.monotonic()
        count = await self._read(reads, self.seconds)
        took = time.monotonic() - began
        used = [(usage_of([pid]).cpu_seconds - so_far) / count * 1e6 for pid, so_far in zip(pids, before, strict=True)]
        return Figure(
            name=name, readers=len(reads), per_second=count / took, reader=used[0], postgres=used[1], redis=used[2]
        )

    async def _read(self, reads: Sequence[Read], seconds: float) -> int:
        until = time.monotonic() + seconds

        async def go_on(read: Read) -> int:
            count = 0
            while time.monotonic() < until:
                await read()
                count += 1
            return count

        return sum(await asyncio.gather(*map(go_on, reads)))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reads", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each figure is measured")
    seconds: float = parser.parse_args().seconds
    print(HEAD, flush=True)
    with private_servers() as servers, started(Redis(servers.folder / "redis", free_ports(1)[0], cache=True)) as redis:
        bench = Bench(servers=servers, redis=redis, seconds=seconds)
        for figure in chain(below_http(bench), over_http(bench)):
            print(figure.line, flush=True)
    return 0


def over_http(bench: Bench) -> Iterator[Figure]:
    """Read by `GET /v1/jobs/{id}` over kept connections."""
    cached = {"cache_url": bench.redis.url(), "cache_answer_seconds": _PATIENT_SECONDS}
    for name, wanted in (("HTTP, Postgres", {}), ("HTTP, cache", cached)):
        with Stack(bench.servers, wanted) as stack:
            paths = cycle([f"/v1/jobs/{job_id}" for job_id in ended_jobs(stack.home.database_url)])
            for readers in _READERS:
                reads = [_asking(Connection(stack.settings.api_port, stack.key), paths) for _ in range(readers)]
                yield uvloop.run(bench.figure(name, stack.api.process.pid, reads))


def below_http(bench: Bench) -> Iterator[Figure]:
    """Read as the API does, in this process: with a position, as a process with replicas asks for it, and without."""
    with Stack(bench.servers, {}) as stack:
        ids = ended_jobs(stack.home.database_url)
        for name in ("Postgres", "Postgres with positions", "cache"):
            for readers in _READERS:
                yield uvloop.run(_below_http(bench, name, stack.home.database_url, ids, readers))


def ended_jobs(dsn: str) -> list[UUID]:
    """Put ended jobs into a database."""
    jobs = [
        NewJob(
            id=new_job_id(Locator(region=0, shard=0)), tenant=_TENANT, task="noop", pool="default", body="[[],{},{}]"
        )
        for _ in range(_JOBS)
    ]

    async def accept() -> None:
        async with opened(PostgresStore(dsn)) as store:
            await store.accept(jobs)

    asyncio.run(accept())
    work, now = PostgresWorkStore(dsn), time.time()
    claim = ClaimRequest(worker="reads", token=str(jobs[0].id), wanted=[(job.id, 0) for job in jobs])
    _, claimed = work.turn([], claim)
    work.turn([_ended(one.id, one.attempt, now) for one in claimed], None)
    work.close()
    return [job.id for job in jobs]


def _ended(job_id: UUID, attempt: int, now: float) -> Ended:
    return Ended(
        id=job_id,
        attempt=attempt,
        state=State.SUCCEEDED,
        end=AttemptEnd.SUCCEEDED,
        started=now,
        stopped=now,
        result=_RESULT,
    )


def _asking(connection: Connection, paths: Iterator[str]) -> Read:
    async def read() -> None:
        answer = await connection.ask("GET", next(paths))
        if answer.status != 200:
            raise RuntimeError(f"a read was answered {answer.status}")

    return read


async def _below_http(bench: Bench, name: str, dsn: str, ids: Sequence[UUID], readers: int) -> Figure:
    turn = cycle(ids)
    cache = RedisCache(bench.redis.url(), answer_seconds=_PATIENT_SECONDS)
    async with opened(PostgresStore(dsn, watermark=Watermark() if "positions" in name else None)) as store:
        lookups: Lookups = Direct(store)
        if name == "cache":
            await cache.start()
            lookups = Cached(store, cache, new_metrics(), retention=timedelta(days=30))

        async def read() -> None:
            if await lookups.one(_TENANT, next(turn), LATEST) is None:
                raise RuntimeError("a job is not there")

        try:
            return await bench.figure(name, os.getpid(), [read] * readers)
        finally:
            await cache.stop()


if __name__ == "__main__":
    sys.exit(main())
