"""Takes jobs in: batches, idempotency keys, the outbox, and which tasks there are."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from uuid import UUID

import msgspec
import psycopg
from psycopg import Rollback

from taskplatform.cancelling import cancel
from taskplatform.errors import InvalidInput, OutcomeUnknown, ShardMoved, StoreUnavailable
from taskplatform.job import NewJob, State
from taskplatform.store.contract import Acceptance, Accepted, KeyTaken, LeftOut, RefusedJob, Replayed
from taskplatform.store.postgres.asking import Ask, again_after_deadlock, writing
from taskplatform.store.postgres.failures import refuse_impossible_text
from taskplatform.store.postgres.maps import Maps
from taskplatform.store.postgres.pool import Pool
from taskplatform.store.postgres.together import Row, run_together
from taskplatform.store.statements import accept_call, announce_call, array, call
from taskplatform.task import Announced, TaskSpec, announced

_Answers = dict[UUID, Acceptance]
_SPECS = msgspec.json.Decoder(list[TaskSpec])


class Intake(Maps):
    """IntakeStore and TaskStore on Postgres."""

    def __init__(self, pool: Pool, *, key_lifetime_seconds: float) -> None:
        super().__init__(pool)
        self._key_lifetime_seconds = key_lifetime_seconds

    async def accept(self, jobs: Sequence[NewJob], *, settled: Sequence[int] = ()) -> list[Acceptance]:
        """Store a batch in one round trip, and ask once more only for jobs whose key or id was known."""
        firsts, others = _first_of_each_key(jobs)
        answers = await self._store(firsts, settled)
        with _beside_what_is_stored(answers):
            await self._answer_known(firsts, others, answers)
        return [answers[job.id] for job in jobs]

    async def _answer_known(self, firsts: Sequence[NewJob], others: Sequence[NewJob], answers: _Answers) -> None:
        unanswered = [job for job in firsts if job.id not in answers]
        refused = {_name(job) for job in firsts if isinstance(answers.get(job.id), RefusedJob)}
        known = [*unanswered, *(job for job in others if _name(job) not in refused)]
        recalled = await _recall(known, self._read)
        answers |= recalled
        if recalled:
            # What was found may come from a commit whose answer was cut off before a standby had it.
            await self._write(call("await_standbys"))
        # A key that was forgotten in between, or whose first job was refused, is free again.
        again = [job for job in (*firsts, *others) if job.id not in answers]
        if again:
            if len(again) == len(firsts) + len(others):
                raise OutcomeUnknown("an idempotency key came and went while the job was stored")
            for job, answer in zip(again, await self.accept(again), strict=True):
                answers[job.id] = answer

    async def accept_whole(self, jobs: Sequence[NewJob]) -> list[Acceptance]:
        """Store a batch in one transaction, and undo it when a key turns out to be taken."""
        return await again_after_deadlock(lambda: self._accept_whole(jobs))

    async def settle_outbox(self, outbox_ids: Sequence[int]) -> None:
        """Delete outbox rows, but those that a relay holds just now."""
        if outbox_ids:
            await self._write(call("settle_outbox", array(outbox_ids)))

    async def prove(self, seconds: float) -> None:
        """Commit something that waits for the standbys."""
        async with self._pool.link(within_seconds=2 * seconds) as link, writing(link):
            proof = asyncio.ensure_future(run_together(link, [call("await_standbys")]))
            try:
                done, _ = await asyncio.wait([proof], timeout=seconds)
                if not done:
                    # Who waits for a standby does not notice that its client has gone, so it is told.
                    with suppress(psycopg.Error):
                        await link.cancel_safe(timeout=seconds)
                await proof
            finally:
                # Whoever is cancelled gives the connection up, on which nobody may wait any more by then.
                await cancel(proof)

    async def tasks(self) -> dict[str, Announced]:
        """Read every announced task."""
        found = await self._read(call("list_tasks"))
        return {name: announced(_SPECS.decode(text), live or ()) for name, text, live in found}

    async def announce(self, specs: Collection[TaskSpec]) -> None:
        """Store the specs of tasks."""
        if specs:
            await self._write(announce_call(specs))

    async def _store(self, jobs: Sequence[NewJob], settled: Sequence[int]) -> _Answers:
        calls = [accept_call(jobs, self._key_lifetime_seconds)]
        if settled:
            calls.append(call("settle_outbox", array(settled)))
        try:
            rows, *_ = await self._write(*calls)
        except InvalidInput as error:
            if len(jobs) == 1:
                return {jobs[0].id: RefusedJob(id=jobs[0].id, error=error)}
            middle = len(jobs) // 2
            answers = await self._store(jobs[:middle], settled)
            with _beside_what_is_stored(answers):
                return answers | await self._store(jobs[middle:], ())
        except ShardMoved as error:
            return await self._store_rest(jobs, settled, error)
        return _accepted(jobs, rows)

    async def _store_rest(self, jobs: Sequence[NewJob], settled: Sequence[int], error: ShardMoved) -> _Answers:
        """Refuse the jobs that are not at home here, and store the others."""
        known = await self.shard_map()
        strangers = [job for job in jobs if known is not None and known.map.home(job.id) != known.cluster]
        if not strangers:
            # The map has changed once more.
            raise error
        refused: _Answers = {job.id: RefusedJob(id=job.id, error=error) for job in strangers}
        rest = [job for job in jobs if job.id not in refused]
        if rest:
            return refused | await self._store(rest, settled)
        await self.settle_outbox(settled)
        return refused

    async def _accept_whole(self, jobs: Sequence[NewJob]) -> list[Acceptance]:
        made = accept_call(jobs, self._key_lifetime_seconds)
        refuse_impossible_text([made])
        async with self._transaction() as ask:
            answers = _accepted(jobs, await ask(made))
            answers |= await _recall([job for job in jobs if job.id not in answers], ask)
            if len(answers) < len(jobs):
                raise StoreUnavailable("an idempotency key came and went while the jobs were stored")
            refused = {job_id for job_id, answer in answers.items() if isinstance(answer, KeyTaken)}
            if refused:
                raise Rollback
        return [answers[job.id] if job.id in refused or not refused else LeftOut(id=job.id) for job in jobs]


@contextmanager
def _beside_what_is_stored(answers: _Answers) -> Iterator[None]:
    """Raise OutcomeUnknown for StoreUnavailable, by which nothing was stored, if any of the answers is Accepted."""
    try:
        yield
    except StoreUnavailable as error:
        if not any(isinstance(answer, Accepted) for answer in answers.values()):
            raise
        raise OutcomeUnknown(f"a part of the batch is stored: {error}") from error


async def _recall(jobs: Sequence[NewJob], ask: Ask) -> _Answers:
    if not jobs:
        return {}
    keyed = [job for job in jobs if job.key is not None]
    found = await ask(call("find_keys", array(job.tenant for job in keyed), array(job.key for job in keyed)))
    named = {(tenant, key): (job_id, fingerprint) for tenant, key, job_id, fingerprint in found}
    answers: _Answers = {}
    for job in keyed:
        job_id, fingerprint = named.get((job.tenant, job.key), (job.id, None))
        if job_id != job.id:
            same = fingerprint == job.fingerprint
            answers[job.id] = Replayed(id=job_id) if same else KeyTaken(id=job_id)
    mine = [job.id for job in jobs if job.id not in answers]
    stored = await ask(call("find_stored", array(mine))) if mine else []
    return answers | {row[0]: Accepted(id=row[0], created_at=row[1], outbox_id=None) for row in stored}


def _accepted(jobs: Sequence[NewJob], rows: Sequence[Row]) -> _Answers:
    ((count, created_at, outbox_id, some, _),) = rows
    ids = set(some or ())
    new = jobs if count == len(jobs) else [job for job in jobs if job.id in ids]
    return {
        job.id: Accepted(id=job.id, created_at=created_at, outbox_id=outbox_id if job.state is State.QUEUED else None)
        for job in new
    }


def _first_of_each_key(jobs: Sequence[NewJob]) -> tuple[list[NewJob], list[NewJob]]:
    firsts: dict[object, NewJob] = {}
    others = [job for job in jobs if firsts.setdefault(_name(job), job) is not job]
    return list(firsts.values()), others


def _name(job: NewJob) -> object:
    return job.id if job.key is None else (job.tenant, job.key)
