"""Procrastinate on Postgres: the job's row says that it succeeded, results are not kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from procrastinate import App, PsycopgConnector

from benchmarks import work
from benchmarks.orders import Work
from benchmarks.places import places
from benchmarks.storage import Rows, Storage

PACKAGES: tuple[str, ...] = ("procrastinate", "psycopg")
BULK = True
LANES = 2
WORKER = [
    *("-m", "procrastinate", "--app=benchmarks.peers.procrastinate_postgres.app"),
    *("worker", "--concurrency", "64"),
]

_places = places()
app = App(connector=PsycopgConnector(conninfo=_places.database_url))
_tasks = {Work.NOOP: app.task(name="noop")(work.async_noop), Work.NAP: app.task(name="nap")(work.async_nap)}


async def prepare() -> None:
    """Make its tables."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


class _Client:
    async def one(self, kind: Work, number: int) -> None:
        await _tasks[kind].defer_async(number=number)

    async def many(self, kind: Work, numbers: Sequence[int]) -> None:
        await _tasks[kind].batch_defer_async(*({"number": number} for number in numbers))


@asynccontextmanager
async def client() -> AsyncIterator[_Client]:
    """Connect."""
    async with app.open_async():
        yield _Client()


def storage() -> Storage:
    """Give the rows of jobs that succeeded."""
    return Rows(
        url=_places.database_url,
        counting="SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
        listing="SELECT args->>'number' FROM procrastinate_jobs WHERE status = 'succeeded'",
    )
