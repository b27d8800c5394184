"""PgQueuer on Postgres: durable tables, batches of 100; a log row says that a job succeeded, results are not kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks import work
from benchmarks.orders import Work
from benchmarks.places import places
from benchmarks.storage import Rows, Storage

PACKAGES: tuple[str, ...] = ("pgqueuer", "asyncpg")
BULK = True
LANES = 1
# Its command line starts the same `PgQueuer.run`, but the one of 1.6.0 fails at its own log level.
WORKER = ["-m", "benchmarks.peers.pgqueuer_postgres"]
_BATCH_SIZE = 100

_places = places()


async def run_worker() -> None:
    """Run jobs until the process is ended."""
    queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(_places.database_url)))
    for name, function in ((Work.NOOP, work.async_noop), (Work.NAP, work.async_nap)):
        queue.entrypoint(str(name))(_job(function))
    await queue.run(batch_size=_BATCH_SIZE)


def _job(function: Any) -> Any:
    async def run(job: Any) -> None:
        await function(int(job.payload))

    return run


async def prepare() -> None:
    """Make its tables."""
    connection = await asyncpg.connect(_places.database_url)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


class _Client:
    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def one(self, kind: Work, number: int) -> None:
        await self._queries.enqueue(str(kind), b"%d" % number)

    async def many(self, kind: Work, numbers: Sequence[int]) -> None:
        payloads = [b"%d" % number for number in numbers]
        await self._queries.enqueue([str(kind)] * len(payloads), payloads, [0] * len(payloads))


@asynccontextmanager
async def client() -> AsyncIterator[_Client]:
    """Connect."""
    connection = await asyncpg.connect(_places.database_url)
    yield _Client(Queries(AsyncpgDriver(connection)))
    await connection.close()


def storage() -> Storage:
    """Give its log of successes."""
    return Rows(url=_places.database_url, counting="SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'")


if __name__ == "__main__":
    uvloop.run(run_worker())
