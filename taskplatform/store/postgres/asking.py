"""Sends calls over the pool: one round trip, one transaction, and again where that is safe."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from taskplatform.errors import OutcomeUnknown, StoreUnavailable
from taskplatform.store.postgres.failures import CutOff, Purpose, TryAgain, refuse_impossible_text, translated
from taskplatform.store.postgres.pool import Link, Pool
from taskplatform.store.postgres.reading import Question, Reading, commit, note_commit, read_primary
from taskplatform.store.postgres.together import Row, run_together
from taskplatform.store.statements import Call

Ask = Callable[[Call], Awaitable[list[Row]]]
T = TypeVar("T")

_TRIES = 6
_PAUSE_SECONDS = 0.01
# The relay publishes within its transaction.
TRANSACTION_SECONDS = 90.0


class Asker:
    """One part of the store: it asks Postgres over a pool that all parts share."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def _read(self, call: Call) -> list[Row]:
        refuse_impossible_text([call])
        return (await self._ask_primary(call)).rows

    async def _ask_primary(self, question: Question) -> Reading:
        async def ask() -> Reading:
            async with self._pool.link() as link:
                with translated(Purpose.READ):
                    return await read_primary(link, question, self._pool.watermark)

        try:
            return await again_after_deadlock(ask)
        except CutOff:
            return await again_after_deadlock(ask)

    async def _write(self, *calls: Call) -> list[list[Row]]:
        refuse_impossible_text(calls)

        async def ask() -> list[list[Row]]:
            async with self._pool.link() as link, writing(link):
                return await commit(link, calls, self._pool.watermark)

        return await again_after_deadlock(ask)

    @asynccontextmanager
    async def _transaction(self, *, within_seconds: float = TRANSACTION_SECONDS) -> AsyncIterator[Ask]:
        async with self._pool.link(within_seconds=within_seconds) as link, writing(link):
            async with link.transaction():
                yield lambda call: _run(link, call)
            await note_commit(link, self._pool.watermark)


async def again_after_deadlock(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and ask again a few times when Postgres undid it for the sake of another transaction."""
    for tried in range(_TRIES):
        try:
            return await ask()
        except TryAgain:
            await asyncio.sleep(_PAUSE_SECONDS * random.random() * 2**tried)
    raise StoreUnavailable("Postgres undid the transaction again and again for the sake of others")


@asynccontextmanager
async def writing(link: Link) -> AsyncIterator[None]:
    """Raise the store's errors for psycopg's, and OutcomeUnknown where a commit waited for no standby."""
    link.warned = None
    with translated(Purpose.WRITE):
        yield
    if link.warned is not None:
        raise OutcomeUnknown(f"the commit may not have reached a standby: {link.warned}")


async def _run(link: Link, call: Call) -> list[Row]:
    (rows,) = await run_together(link, [call])
    return rows
