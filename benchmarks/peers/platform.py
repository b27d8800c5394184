"""The platform as a side of the comparison: jobs go in over HTTP, results are in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from benchmarks.orders import Work
from benchmarks.places import places
from benchmarks.storage import Rows, Storage
from tests.native.wire import Connection

PACKAGES: tuple[str, ...] = ("taskplatform", "celery")
BULK = True
LANES = 4
WORKER: list[str] = []
_ACCEPTED = 202

_places = places()


async def prepare() -> None:
    """Do nothing: the stack has made everything."""


@dataclass(slots=True)
class _Client:
    _idle: list[Connection] = field(default_factory=list)

    async def one(self, kind: Work, number: int) -> None:
        await self._post("/v1/jobs", _job(kind, number))

    async def many(self, kind: Work, numbers: Sequence[int]) -> None:
        await self._post("/v1/jobs:batch", [_job(kind, number) for number in numbers])

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def _post(self, path: str, body: object) -> None:
        connection = self._idle.pop() if self._idle else Connection(_places.api_port, _places.api_key)
        answer = await connection.ask("POST", path, msgspec.json.encode(body))
        self._idle.append(connection)
        if answer.status != _ACCEPTED or b'"problem"' in answer.body:
            raise RuntimeError(f"{path} was answered {answer.status}: {answer.body[:200]!r}")


def _job(kind: Work, number: int) -> dict[str, object]:
    return {"task": f"benchmarks.{kind}", "args": [number]}


@asynccontextmanager
async def client() -> AsyncIterator[_Client]:
    """Connect when the first job is handed in."""
    made = _Client()
    yield made
    made.close()


def storage() -> Storage:
    """Give the ended jobs."""
    return Rows(
        url=_places.database_url,
        counting="SELECT count(*) FROM finished_jobs WHERE state = 'succeeded'",
        listing="SELECT result FROM finished_jobs WHERE state = 'succeeded'",
    )
