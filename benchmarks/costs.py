"""What one step of a job costs in a database: Postgres' processor time and the time until the answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from uuid import UUID

import psycopg

from benchmarks.bulk import TENANT
from taskplatform.errors import InvalidInput
from taskplatform.ids import Locator, new_job_id
from taskplatform.job import AttemptEnd, NewJob, Priority, State
from taskplatform.store.contract import QUEUE_FULL, Accepted, JobFilter
from taskplatform.store.postgres.conninfo import complete
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.store.postgres.work import PostgresWorkStore
from taskplatform.store.statements import call
from taskplatform.store.working import Claimed, ClaimRequest, Ended
from tests.native.accounting import precise_seconds

_BATCH = 100
_RELEASED = 200
_SEED = 11
_WORKER = "default@costs"
# Lists without a single job.
_FRUITLESS = {
    "dead": JobFilter(tenant=TENANT, states=frozenset({State.DEAD})),
    "retrying": JobFilter(tenant=TENANT, states=frozenset({State.RETRYING})),
    "running": JobFilter(tenant=TENANT, states=frozenset({State.RUNNING})),
    "task": JobFilter(tenant=TENANT, task="benchmarks.none"),
    "tag": JobFilter(tenant=TENANT, tag="none"),
}
_SESSIONS = (
    b"SELECT pid FROM pg_stat_activity"
    b" WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@dataclass(slots=True, kw_only=True)
class Costs:
    """Measures the steps in one database, one after the other; every figure is in milliseconds per 1,000.

    Jobs are counted where a step takes many at once, calls where it does not depend on jobs. Each step leaves the
    tables as full as they were, but for the ended jobs.
    """

    url: str
    store: PostgresStore
    work: PostgresWorkStore
    sample_ids: Sequence[UUID]
    figures: dict[str, float] = field(default_factory=dict)
    _asker: psycopg.Connection = field(init=False)
    _session: psycopg.Connection = field(init=False)
    _random: Random = field(default_factory=lambda: Random(_SEED))

    def __post_init__(self) -> None:
        self._asker = psycopg.connect(self.url, autocommit=True)
        self._session = psycopg.connect(complete(self.url), autocommit=True)

    def close(self) -> None:
        """Close what it opened itself."""
        self._asker.close()
        self._session.close()

    async def measure(self, jobs: int) -> dict[str, float]:
        """Take so many jobs through all steps, then read, list and sweep."""
        await self.run(jobs)
        await self._dispatch(jobs)
        await self._calls("read", 300, self._read_one)
        await self._calls("list", 50, self._list_page)
        for name, wanted in _FRUITLESS.items():
            await self._calls(f"list_{name}", 5, partial(self._find_none, wanted))
        await self._calls("rescue", 100, lambda: self.store.rescue(3))
        await self._calls("orphans", 3, self._look_for_orphans)
        await self._calls("sweep", 100, self._sweep)
        return self.figures

    async def run(self, jobs: int) -> dict[str, float]:
        """Accept so many jobs, claim and finish them."""
        self._claim_and_finish(await self._accept(jobs))
        return self.figures

    @contextmanager
    def _metered(self, name: str, count: int) -> Iterator[None]:
        pids = [row[0] for row in self._asker.execute(_SESSIONS)]
        cpu, began = precise_seconds(pids), time.monotonic()
        yield
        elapsed = time.monotonic() - began
        self.figures[f"{name}_ms_per_1000"] = (precise_seconds(pids) - cpu) / count * 1e6
        self.figures[f"{name}_elapsed_ms_per_1000"] = elapsed / count * 1e6

    async def _accept(self, jobs: int) -> list[UUID]:
        batches = [[_new_job() for _ in range(_BATCH)] for _ in range(jobs // _BATCH)]
        with self._metered("accept", jobs):
            accepted = [one for batch in batches for one in await self.store.accept(batch)]
        rows = {one.outbox_id for one in accepted if isinstance(one, Accepted) and one.outbox_id is not None}
        await self.store.settle_outbox(sorted(rows))
        return [one.id for one in accepted]

    def _claim_and_finish(self, ids: Sequence[UUID]) -> None:
        held: list[Claimed] = []
        self.work.lost([])
        with self._metered("claim_finish", len(ids)):
            for at in range(0, len(ids) + _BATCH, _BATCH):
                wanted = [(job_id, 0) for job_id in ids[at : at + _BATCH]]
                claim = ClaimRequest(worker=_WORKER, token=f"{at}", wanted=wanted) if wanted else None
                _, held = self.work.turn([_success(claimed) for claimed in held], claim)

    async def _dispatch(self, jobs: int) -> None:
        # First in the line, so that those that a load has put there stay.
        held = [_job_of(1, State.BLOCKED, QUEUE_FULL) for _ in range(jobs)]
        await self.store.accept(held)
        released: list[UUID] = []
        with self._metered("dispatch", jobs):
            while len(released) < jobs:
                some = await self.store.release_blocked(
                    "default", Priority.NORMAL, min(_RELEASED, jobs - len(released))
                )
                await self.store.settle_outbox(sorted({one.outbox_id for one in some if one.outbox_id is not None}))
                released += [one.envelope.id for one in some]
        await self.store.cancel(TENANT, released)

    async def _calls(self, name: str, count: int, ask: Callable[[], Awaitable[object]]) -> None:
        await ask()
        with self._metered(name, count):
            for _ in range(count):
                await ask()

    async def _read_one(self) -> None:
        job_id = self._random.choice(self.sample_ids)
        if job_id not in await self.store.get([job_id]):
            raise RuntimeError(f"job {job_id} is gone")

    async def _list_page(self) -> None:
        await self.store.search(JobFilter(tenant=TENANT, before=self._random.choice(self.sample_ids)), 50)

    async def _find_none(self, wanted: JobFilter) -> None:
        with suppress(InvalidInput):  # It took too long; the time counts all the same.
            await self.store.search(wanted, 50)

    async def _look_for_orphans(self) -> None:
        # The rescuer does so now and then; here it is every time.
        self._session.execute(call("orphaned_running").sql.encode())

    async def _sweep(self) -> None:
        await self.store.hold_due([("default", Priority.LOW)], 500)
        await self.store.release_due(500)
        await self.store.blocked_queues(["default"])
        await self.store.seconds_to_next_due()
        await self.store.expire(500)
        await self.store.stranded("default", Priority.NORMAL, 3600.0, 500)


def _new_job() -> NewJob:
    return _job_of(None, State.QUEUED, None)


def _job_of(milliseconds: int | None, state: State, blocked_on: str | None) -> NewJob:
    job_id = new_job_id(Locator(region=0, shard=0), milliseconds=milliseconds)
    return NewJob(
        id=job_id,
        tenant=TENANT,
        task="benchmarks.noop",
        pool="default",
        body="[[1],{},{}]",
        state=state,
        blocked_on=blocked_on,
    )


def _success(claimed: Claimed) -> Ended:
    now = time.time()
    return Ended(
        id=claimed.id,
        attempt=claimed.attempt,
        state=State.SUCCEEDED,
        end=AttemptEnd.SUCCEEDED,
        started=now,
        stopped=now,
        result="1",
    )
