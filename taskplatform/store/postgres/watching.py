"""Counts what there is, for those who watch."""

from __future__ import annotations

from taskplatform.errors import InvalidInput, StoreUnavailable
from taskplatform.job import State
from taskplatform.store.postgres.asking import Asker
from taskplatform.store.postgres.failures import Purpose, translated
from taskplatform.store.postgres.rows import Row
from taskplatform.store.statements import call
from taskplatform.store.watching import Crew, Crowd, OutboxState, Owed, Sessions, Standby

COUNT_SECONDS = 30
"""How long a count of everything may take."""
_GRACE_SECONDS = 5
"""How much longer its connection is kept: who cuts it first leaves the query running."""

# A count of everything reads a table from end to end, which our sessions otherwise never do.
_END_TO_END = (
    f"SELECT set_config('enable_seqscan', 'on', true), set_config('statement_timeout', '{COUNT_SECONDS}s', true)"
)


class Watching(Asker):
    """WatchStore on Postgres."""

    async def census(self) -> list[Crowd]:
        """Count live jobs."""
        return [
            Crowd(pool=pool, priority=priority, state=State(state), gate=gate, jobs=jobs, oldest_seconds=age or 0.0)
            for pool, priority, state, gate, jobs, age in await self._read_all("census")
        ]

    async def unreplayed_letters(self) -> dict[tuple[str, str], int]:
        """Count dead letters."""
        return {(queue, reason): number for queue, reason, number in await self._read_all("unreplayed_letters")}

    async def outbox_state(self) -> OutboxState:
        """Look at the outbox."""
        ((rows, jobs, age),) = await self._read(call("outbox_state"))
        return OutboxState(rows=rows, jobs=jobs, oldest_seconds=age)

    async def crews(self) -> list[Crew]:
        """Count workers."""
        return [
            Crew(pool=pool, draining=draining, workers=workers, slots=slots, waiting=waiting)
            for pool, draining, workers, slots, waiting in await self._read(call("crews"))
        ]

    async def standbys(self) -> list[Standby]:
        """Look at the standbys."""
        return [
            Standby(name=name, lag_seconds=seconds, lag_bytes=size)
            for name, seconds, size in await self._read(call("standbys"))
        ]

    async def sessions(self) -> Sessions:
        """Look at the sessions."""
        rows = await self._read(call("sessions"))
        return Sessions(
            by_state={state: number for state, number, _ in rows},
            oldest_transaction_seconds=max((age for _, _, age in rows), default=0.0),
        )

    async def in_outbox(self) -> dict[str, int]:
        """Count jobs in the outbox."""
        return dict(await self._read(call("in_outbox")))

    async def owed(self, age_seconds: float) -> dict[str, Owed]:
        """Count jobs that somebody must have."""
        return {
            pool: Owed(queued=queued, running_without_lease=running)
            for pool, queued, running in await self._read(call("owed", str(age_seconds)))
        }

    async def _read_all(self, name: str) -> list[Row]:
        asked = call(name)
        try:
            async with self._pool.link(within_seconds=COUNT_SECONDS + _GRACE_SECONDS) as link:
                with translated(Purpose.READ):
                    async with link.transaction():
                        await link.execute(_END_TO_END)
                        cursor = await link.execute(asked.sql, prepare=False)
                    return await cursor.fetchall()
        except InvalidInput as error:
            raise StoreUnavailable(f"{name} takes longer than {COUNT_SECONDS} s: {error.detail}") from None
