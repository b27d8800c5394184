"""What one exchange with Postgres tells when its commit, or what was asked behind the commit, fails."""

import asyncio

import psycopg
import pytest

from taskplatform.errors import OutcomeUnknown
from taskplatform.freshness import Watermark
from taskplatform.store.postgres.pool import Link
from taskplatform.store.postgres.reading import note_commit
from taskplatform.store.postgres.together import Row, run_together
from taskplatform.store.statements import Call
from tests.fixtures.store import DrivenStore


@pytest.fixture
def checked_late(store: DrivenStore) -> None:
    """A table that refuses the same number twice, but not before the commit."""
    store.rows("CREATE TABLE late (number int UNIQUE DEFERRABLE INITIALLY DEFERRED)")


def put(number: int) -> Call:
    return Call("put", "INSERT INTO late VALUES ($1)", (str(number),))


LOOK = Call("look", "SELECT number FROM late ORDER BY number", ())


@pytest.mark.usefixtures("checked_late")
def test_a_commit_that_is_refused_leaves_a_connection_that_knows_what_it_has_prepared(database: str) -> None:
    async def scene() -> list[list[Row]]:
        async with await Link.to(database) as link:
            with pytest.raises(psycopg.errors.UniqueViolation):
                await run_together(link, [put(1), put(1)], afterwards=[LOOK])
            assert link.usable
            return await run_together(link, [put(2)], afterwards=[LOOK])

    assert asyncio.run(scene()) == [[], [(2,)]]


@pytest.mark.usefixtures("checked_late")
@pytest.mark.parametrize(
    "failing",
    [
        pytest.param(Call("fail", "SELECT 1/0", ()), id="at its statement"),
        pytest.param(Call("fail", "INSERT INTO late VALUES (7), (7)", ()), id="at its commit"),
    ],
)
def test_what_fails_behind_a_commit_takes_nothing_of_it_back(database: str, failing: Call) -> None:
    async def scene() -> list[list[Row]]:
        async with await Link.to(database) as link:
            with pytest.raises(OutcomeUnknown, match="committed"):
                await run_together(link, [put(1)], afterwards=[failing])
            assert link.usable
            return await run_together(link, [put(2)], afterwards=[LOOK])

    assert asyncio.run(scene()) == [[], [(1,), (2,)]]


@pytest.mark.usefixtures("checked_late")
def test_a_transaction_that_was_undone_is_told_of_though_what_is_behind_it_fails_too(database: str) -> None:
    async def scene() -> list[list[Row]]:
        async with await Link.to(database) as link:
            with pytest.raises(psycopg.errors.DivisionByZero):
                await run_together(
                    link,
                    [put(1), Call("fail", "SELECT 1/0", ())],
                    afterwards=[Call("late", "INSERT INTO late VALUES (7), (7)", ())],
                )
            return await run_together(link, [LOOK])

    assert asyncio.run(scene()) == [[]]


def test_a_position_that_cannot_be_read_after_a_commit_does_not_deny_the_commit(database: str) -> None:
    async def scene() -> None:
        async with await Link.to(database) as link:
            await link.execute("PREPARE primary_position AS SELECT 1/0")
            link.prepared.add("primary_position")
            with pytest.raises(OutcomeUnknown, match="committed"):
                await note_commit(link, Watermark())

    asyncio.run(scene())
