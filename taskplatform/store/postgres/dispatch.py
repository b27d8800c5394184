"""Moves jobs between their gates, the outbox and the workers, and takes them back from workers that are gone."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from taskplatform.errors import BrokerUnavailable
from taskplatform.job import Priority, Rescued, State
from taskplatform.store.contract import QUEUE_FULL, BuriedMessage, Publish, Release
from taskplatform.store.postgres import rows
from taskplatform.store.postgres.asking import Asker, again_after_deadlock
from taskplatform.store.postgres.pool import Pool
from taskplatform.store.statements import array, bury_call, call, error_text

ORPHANS_SECONDS = 30.0
"""How often running jobs are looked through for those whose worker has no lease; reads what is queued or runs."""

_WORKERS_AT_ONCE = 100
_VANISHED = error_text("WorkerLost", "the worker that ran this attempt is gone")


class Dispatch(Asker):
    """DispatchStore on Postgres, but for its upkeep."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._orphans_due = 0.0

    async def release_due(self, limit: int, full: Sequence[tuple[str, Priority]] = ()) -> list[Release]:
        """Queue due jobs."""
        return await self._release("release_due", *_gates(full), str(limit))

    async def hold_due(self, full: Sequence[tuple[str, Priority]], limit: int) -> int:
        """Block due jobs of full queues."""
        (held,) = await self._write(call("hold_due", *_gates(full), QUEUE_FULL, str(limit)))
        return len(held)

    async def release_blocked(self, pool: str, priority: Priority, limit: int) -> list[Release]:
        """Queue blocked jobs."""
        return await self._release("release_blocked", pool, priority, QUEUE_FULL, str(limit))

    async def blocked_queues(self, pools: Sequence[str]) -> list[tuple[str, Priority]]:
        """Tell which queues hold jobs back."""
        wanted = [(pool, priority) for pool in pools for priority in Priority]
        asked = call("blocked_gates", QUEUE_FULL, array(pool for pool, _ in wanted), array(prio for _, prio in wanted))
        return [(pool, Priority(priority)) for pool, priority in await self._read(asked)]

    async def seconds_to_next_due(self) -> float | None:
        """Tell when the next job is due."""
        ((seconds,),) = await self._read(call("next_due"))
        return None if seconds is None else float(seconds)

    async def relay(self, age_seconds: float, limit: int, publish: Publish) -> int:
        """Publish what old outbox rows want, while they are locked."""
        async with self._transaction() as ask:
            taken = await ask(call("take_outbox", str(age_seconds), str(limit)))
            wanted: dict[int, set[UUID]] = defaultdict(set)
            releases: list[Release] = []
            for *job, outbox_id in taken:
                wanted[outbox_id].update([job[0]] if job[0] else [])
                if job[0]:
                    releases.append(rows.release((*job, outbox_id)))
            confirmed: set[UUID] = set()
            trouble: BrokerUnavailable | None = None
            try:
                confirmed.update(await publish(releases) if releases else ())
            except BrokerUnavailable as error:
                trouble = error
            done = [outbox_id for outbox_id, ids in wanted.items() if ids <= confirmed]
            if done:
                await ask(call("settle_outbox", array(done)))
            if len(done) < len(wanted):
                await ask(call("put_off_outbox", array(wanted.keys() - set(done)), array(confirmed)))
        if trouble is not None:
            raise trouble
        return len(done)

    async def stranded(self, pool: str, priority: Priority, age_seconds: float, limit: int) -> list[Release]:
        """Read jobs that have been queued for long."""
        found = await self._read(call("find_stranded", pool, priority, str(age_seconds), str(limit)))
        return [rows.release(row) for row in found]

    async def touch(self, ids: Sequence[UUID]) -> None:
        """Note that jobs were published again."""
        await self._write(call("touch_stranded", array(ids)))

    async def expire(self, limit: int) -> int:
        """Move jobs past their deadline to the expired ones."""
        (expired,) = await self._write(call("expire_due", str(limit)))
        return len(expired)

    async def rescue(self, crash_limit: int) -> list[Rescued]:
        """Take running jobs from lapsed workers, and now and then from those that never had a lease."""
        return await again_after_deadlock(lambda: self._rescue(crash_limit))

    async def bury(self, messages: Sequence[BuriedMessage]) -> list[bool]:
        """Keep messages as dead letters."""
        if messages:
            await self._write(bury_call(messages))
        return [True] * len(messages)

    async def _release(self, name: str, *parameters: str) -> list[Release]:
        (released,) = await self._write(call(name, *parameters))
        return [rows.release(row) for row in released]

    async def _rescue(self, crash_limit: int) -> list[Rescued]:
        look_for_orphans = time.monotonic() >= self._orphans_due
        async with self._transaction() as ask:
            lapsed = [row[0] for row in await ask(call("lapsed_workers", str(_WORKERS_AT_ONCE)))]
            if look_for_orphans:
                lapsed += [row[0] for row in await ask(call("orphaned_running"))]
            rescued = []
            if lapsed:
                rescued = await ask(call("rescue_running", array(lapsed), str(crash_limit), _VANISHED))
                await ask(call("end_leases", array(lapsed)))
        if look_for_orphans:
            self._orphans_due = time.monotonic() + ORPHANS_SECONDS
        return [
            Rescued(id=job_id, task=task, tenant=tenant, pool=pool, trace=trace, state=State(state))
            for job_id, task, tenant, pool, trace, state in rescued
        ]


def _gates(queues: Sequence[tuple[str, Priority]]) -> tuple[str, str]:
    return array(pool for pool, _ in queues), array(priority for _, priority in queues)
