"""The platform as a side of the comparison: jobs go in over HTTP, results are in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

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


class _Accepted(msgspec.Struct):
    status: int
    id: UUID


class _Job(msgspec.Struct):
    id: UUID


class _Batch(msgspec.Struct):
    items: list[_Accepted]


_JOB = msgspec.json.Decoder(_Job)
_BATCH = msgspec.json.Decoder(_Batch)


@dataclass(slots=True)
class _Client:
    """Takes no answer on trust: every job has to be accepted, under an id that no other has."""

    _idle: list[Connection] = field(default_factory=list)
    _ids: set[UUID] = field(default_factory=set)

    async def one(self, kind: Work, number: int) -> None:
        self._note([_JOB.decode(await self._post("/v1/jobs", _job(kind, number))).id], 1)

    async def many(self, kind: Work, numbers: Sequence[int]) -> None:
        body = await self._post("/v1/jobs:batch", [_job(kind, number) for number in numbers])
        self._note([item.id for item in _BATCH.decode(body).items if item.status == _ACCEPTED], len(numbers))

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    def _note(self, ids: Sequence[UUID], expected: int) -> None:
        before = len(self._ids)
        self._ids.update(ids)
        if len(self._ids) - before != expected:
            raise RuntimeError(f"{len(self._ids) - before} new ids came for {expected} jobs")

    async def _post(self, path: str, body: object) -> bytes:
        connection = self._idle.pop() if self._idle else Connection(_places.api_port, _places.api_key)
        answer = await connection.ask("POST", path, msgspec.json.encode(body))
        self._idle.append(connection)
        if answer.status != _ACCEPTED:
            raise RuntimeError(f"{path} was answered {answer.status}: {answer.body[:200]!r}")
        return answer.body


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
