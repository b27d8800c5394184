"""Reads jobs, attempts and dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import msgspec

from taskplatform.cancelling import cancel
from taskplatform.errors import StoreUnavailable
from taskplatform.freshness import LATEST, Position, Watermark
from taskplatform.job import Attempt, DeadLetter, Job
from taskplatform.overview import Glance
from taskplatform.store.contract import JobFilter, LetterFilter, Look
from taskplatform.store.postgres import rows
from taskplatform.store.postgres.asking import Asker
from taskplatform.store.postgres.pool import Pool
from taskplatform.store.postgres.reading import (
    SEARCH_SECONDS,
    Question,
    Reading,
    read_replica,
    read_replica_that_includes,
)
from taskplatform.store.postgres.replicas import ANSWER_SECONDS, Asking, Replicas
from taskplatform.store.routing import showable
from taskplatform.store.statements import Call, array, call

_SEARCH_PATIENCE_SECONDS = SEARCH_SECONDS + ANSWER_SECONDS


class Read(Asker):
    """ReadStore on Postgres: whoever says what it has seen may be answered by a replica."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._replicas = Replicas([])

    async def get(self, ids: Sequence[UUID]) -> dict[UUID, Job]:
        """Read jobs by id, live or ended, from the primary."""
        return _by_id(await self._read(call("get_jobs", array(ids))))

    async def look(self, ids: Sequence[UUID], seen: Position) -> Look:
        """Read jobs from a replica, and from the primary whatever that one may not tell."""
        asked = call("get_jobs", array(ids))
        if not self._replicas:
            found = await self._ask_primary(asked)
            return Look(jobs=_by_id(found.rows), since=found.since)
        shown: dict[UUID, Job] = {}
        reading = await self._replicas.read(self._replica_asks(asked))
        if reading is not None:
            shown = showable(_by_id(reading.rows), reading.since, seen)
            if len(shown) == len(set(ids)):
                return Look(jobs=shown, since=reading.since)
        missing = [job_id for job_id in ids if job_id not in shown]
        asking = asyncio.create_task(self._ask_primary(call("get_jobs", array(missing))))
        try:
            await asyncio.wait({asking}, timeout=ANSWER_SECONDS)
            ended = None if _answered(asking) else await self._look_beside(asking, ids)
            if ended is not None:
                return ended
            rest = await asking
        finally:
            await cancel(asking)
        older = reading is not None and not all(job.settled for job in shown.values())
        return Look(jobs=shown | _by_id(rest.rows), since=reading.since if reading and older else rest.since)

    async def attempts(self, job_id: UUID, seen: Position | None = None) -> list[Attempt]:
        """Read a job's attempts."""
        found = await self._current(call("get_attempts", str(job_id)), seen)
        return [rows.attempt(row) for row in found]

    async def search(self, wanted: JobFilter, limit: int, seen: Position | None = None) -> list[Job]:
        """Search live and ended jobs in one snapshot."""
        # Here, since SQLAlchemy takes 14 MB, and most processes never search.
        from taskplatform.store.postgres import searches

        question = searches.for_jobs(wanted, limit)
        return [rows.job(row) for row in await self._current(question, seen, _SEARCH_PATIENCE_SECONDS)]

    async def done_among(self, ids: Sequence[UUID], seen: Position | None = None) -> set[UUID]:
        """Tell which jobs have ended."""
        found = await self._current(call("done_among", array(ids)), seen)
        return {row[0] for row in found}

    async def letters(self, wanted: LetterFilter, limit: int, seen: Position | None = None) -> list[DeadLetter]:
        """Search dead letters."""
        from taskplatform.store.postgres import searches

        question = searches.for_letters(wanted, limit)
        return [rows.letter(row) for row in await self._current(question, seen, _SEARCH_PATIENCE_SECONDS)]

    async def letter(self, letter_id: int) -> DeadLetter | None:
        """Read one dead letter with its raw bytes."""
        found = await self._read(call("get_letter", str(letter_id)))
        return rows.letter(found[0]) if found else None

    async def glance(self) -> Glance:
        """Look at everything with one statement."""
        ((text,),) = await self._read(call("glance"))
        return msgspec.json.decode(text, type=Glance)

    async def _current(
        self, question: Question, seen: Position | None, seconds: float = ANSWER_SECONDS
    ) -> list[rows.Row]:
        watermark = self._pool.watermark
        if seen is not None and seen != LATEST and watermark is not None:
            found = await self._replicas.read(
                lambda link: read_replica_that_includes(link, seen, question, watermark), seconds
            )
            if found is not None and found.since is not None and found.since.includes(seen):
                return found.rows
        return (await self._ask_primary(question)).rows

    async def _look_beside(self, primary: asyncio.Task[Reading], ids: Sequence[UUID]) -> Look | None:
        """Look at replicas alone; None when the primary answers first, or is all that is left to wait for."""
        # A primary that stands still says nothing for long: what has ended is shown without it.
        looking = asyncio.create_task(self._look_without_primary(ids))
        try:
            await asyncio.wait({primary, looking}, return_when=asyncio.FIRST_COMPLETED)
            return None if _answered(primary) else await looking
        finally:
            await cancel(looking)

    async def _look_without_primary(self, ids: Sequence[UUID]) -> Look | None:
        shown: dict[UUID, Job] = {}
        async for reading in self._replicas.each(self._replica_asks(call("get_jobs", array(ids)))):
            shown |= showable(_by_id(reading.rows), None, LATEST)
            if len(shown) == len(set(ids)):
                return Look(jobs=shown, since=None)
        return None

    def _replica_asks(self, asked: Call) -> Asking:
        watermark = self._pool.watermark or Watermark()
        return lambda link: read_replica(link, asked, watermark)


def _answered(asking: asyncio.Task[Reading]) -> bool:
    return asking.done() and not isinstance(asking.exception(), StoreUnavailable)


def _by_id(found: Sequence[rows.Row]) -> dict[UUID, Job]:
    return {row[0]: rows.job(row) for row in found}
