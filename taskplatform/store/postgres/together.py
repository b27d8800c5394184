"""Sends statements to Postgres in one round trip, on libpq's pipeline, with few turns of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from psycopg import Error, OperationalError
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from taskplatform.errors import OutcomeUnknown
from taskplatform.store.postgres.pool import Link
from taskplatform.store.statements import Call

Row = tuple[Any, ...]


async def run_together(link: Link, calls: Sequence[Call], *, afterwards: Sequence[Call] = ()) -> list[list[Row]]:
    """Run calls as one implicit transaction, or as a part of the open one, and give the rows of each.

    What is asked `afterwards` goes along, as a transaction of its own behind that one; its rows follow. Every statement
    is prepared under its name when the connection first sees it. Raises psycopg.Error, and OutcomeUnknown when the
    first transaction stands and the one behind it failed; a connection on which an answer is still due is of no use to
    anybody else, and looks so.
    """
    pgconn = link.pgconn
    pgconn.enter_pipeline_mode()
    transactions = [part for part in (calls, afterwards) if part]
    try:
        expected = _send(link, transactions)
        answers = await _answers(pgconn, len(transactions))
    finally:
        with suppress(Error):
            pgconn.exit_pipeline_mode()
    # A commit that is refused answers once more, behind all that was asked for in its transaction.
    pairs = [pair for both in zip(expected, answers, strict=True) for pair in zip(*both, strict=False)]
    # Not before: what follows a failed statement of a pipeline is not even parsed.
    link.prepared.update(name for name, result in pairs if name and _is_well(result))
    failure = _failure(answers)
    if failure is not None:
        raise failure
    return [_rows(link, result) for name, result in pairs if name is None]


def _send(link: Link, transactions: Sequence[Sequence[Call]]) -> list[list[str | None]]:
    """Write everything; gives for each answer to come the name that it prepares, None where it holds rows."""
    pgconn = link.pgconn
    new: set[str] = set()
    expected: list[list[str | None]] = []
    for calls in transactions:
        expected.append([])
        for call in calls:
            name = call.name.encode()
            if call.name not in link.prepared and call.name not in new:
                pgconn.send_prepare(name, call.sql.encode())
                expected[-1].append(call.name)
                new.add(call.name)
            pgconn.send_query_prepared(name, [None if text is None else text.encode() for text in call.parameters])
            expected[-1].append(None)
        pgconn.pipeline_sync()
    return expected


async def _answers(pgconn: PGconn, transactions: int) -> list[list[PGresult]]:
    """Wait for the results of each transaction."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    socket = pgconn.socket
    answers: list[list[PGresult]] = [[]]
    loop.add_reader(socket, ready.set)
    try:
        while pgconn.flush():
            loop.add_writer(socket, ready.set)
            await _next(ready, pgconn)
            loop.remove_writer(socket)
        _collect(pgconn, answers)
        while len(answers) <= transactions:
            await _next(ready, pgconn)
            _collect(pgconn, answers)
    except OperationalError:
        # What the server said last tells more than that the line is dead.
        said = _failure(answers)
        if said is None:
            raise
        raise said from None
    finally:
        loop.remove_reader(socket)
        loop.remove_writer(socket)
    return answers[:transactions]


async def _next(ready: asyncio.Event, pgconn: PGconn) -> None:
    await ready.wait()
    ready.clear()
    pgconn.consume_input()


def _collect(pgconn: PGconn, answers: list[list[PGresult]]) -> None:
    """Take the results that are there, those of each transaction into a list of their own."""
    statement_ended = False
    while not pgconn.is_busy():
        result = pgconn.get_result()
        if result is None:
            if statement_ended:
                break
            statement_ended = True
            continue
        statement_ended = False
        if result.status == ExecStatus.PIPELINE_SYNC:
            answers.append([])
        else:
            answers[-1].append(result)


def _failure(answers: Sequence[Sequence[PGresult]]) -> Exception | None:
    """Give the error that the transactions ended with, if any; what comes behind the first takes nothing of it back."""
    for number, results in enumerate(answers):
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                error = error_from_result(result)
                return OutcomeUnknown(f"committed, but what was asked behind it failed: {error}") if number else error
    return None


def _is_well(result: PGresult) -> bool:
    return result.status == ExecStatus.COMMAND_OK


def _rows(link: Link, result: PGresult) -> list[Row]:
    if not result.nfields:
        return []
    transformer = Transformer(link)
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)
