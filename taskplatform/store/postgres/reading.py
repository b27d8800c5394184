"""Reads with the positions in the log of the database between which the answer was found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from psycopg import Error

from taskplatform.errors import OutcomeUnknown
from taskplatform.freshness import Position, Watermark
from taskplatform.store.postgres.pool import Link
from taskplatform.store.postgres.together import Row, run_together
from taskplatform.store.statements import Call, call

SEARCH_SECONDS = 2.0
"""How long Postgres may think about one search."""

Question = Call | Callable[[Link], Awaitable[list[Row]]]
"""What to ask: one statement, or whatever takes more round trips."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found; everything up to `since` is in it, which is None where nothing can be said."""

    rows: list[Row]
    since: Position | None


async def read_primary(link: Link, question: Question, watermark: Watermark | None) -> Reading:
    """Ask the primary, and note how far it had come when the answer was found, where anybody wants to know."""
    if watermark is None:
        return Reading(await _answer(link, question), None)
    before, rows, after = await _between(link, question, call("primary_position"))
    watermark.note(_end_of_log(after))
    began = _end_of_log(before)
    # A commit is in the log for a moment before anybody sees it: of one at the very end nothing can be said.
    return Reading(rows, Position(began.timeline, began.lsn - 1))


async def read_replica(link: Link, question: Question, watermark: Watermark) -> Reading:
    """Ask a replica, and note how far it may have come when the answer was found.

    One that follows no primary may have come from another past: nothing is said of how far it has come.
    """
    before, rows, after = await _between(link, question, call("replica_position"))
    # What was just replayed shows a moment before it counts as replayed, but it was received before.
    ((timeline, received, _),) = after
    watermark.note(Position(timeline or 0, _lsn(received)))
    return Reading(rows, _replayed(before))


async def read_replica_that_includes(link: Link, seen: Position, question: Question, watermark: Watermark) -> Reading:
    """Ask a replica only if it has come so far; one that has not costs no search, and gives no rows."""
    at = _replayed(await _answer(link, call("replica_position")))
    if at is None or not at.includes(seen):
        return Reading([], None)
    return await read_replica(link, question, watermark)


async def commit(link: Link, calls: Sequence[Call], watermark: Watermark | None) -> list[list[Row]]:
    """Run calls as one transaction, and note how far the log has come after it, where anybody wants to know."""
    if watermark is None:
        return await run_together(link, calls)
    *rows, after = await run_together(link, calls, afterwards=[call("primary_position")])
    watermark.note(_end_of_log(after))
    return rows


async def note_commit(link: Link, watermark: Watermark | None) -> None:
    """Note how far the log has come after a commit on this connection, where anybody wants to know.

    Raises OutcomeUnknown when that cannot be told: the commit stands.
    """
    if watermark is None:
        return
    try:
        after = await _answer(link, call("primary_position"))
    except Error as error:
        raise OutcomeUnknown(f"committed, but what was asked behind it failed: {error}") from error
    watermark.note(_end_of_log(after))


async def _answer(link: Link, question: Question) -> list[Row]:
    if not isinstance(question, Call):
        return await question(link)
    (rows,) = await run_together(link, [question])
    return rows


async def _between(link: Link, question: Question, position: Call) -> tuple[list[Row], list[Row], list[Row]]:
    if isinstance(question, Call):
        before, rows, after = await run_together(link, [position, question, position])
        return before, rows, after
    return await _answer(link, position), await question(link), await _answer(link, position)


def _end_of_log(rows: list[Row]) -> Position:
    ((segment, at),) = rows
    return Position(int(segment[:8], 16), _lsn(at))


def _replayed(rows: list[Row]) -> Position | None:
    ((timeline, _, replayed),) = rows
    return Position(timeline, _lsn(replayed)) if timeline and replayed else None


def _lsn(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)
