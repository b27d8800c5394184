"""The store of a worker's parent, one blocking round trip a turn."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

import psycopg
from psycopg import RawCursor
from psycopg.rows import TupleRow
from psycopg.types.string import TextLoader

from taskplatform.errors import InvalidInput, OutcomeUnknown, StoreUnavailable
from taskplatform.store.postgres.conninfo import complete
from taskplatform.store.postgres.failures import Purpose, TryAgain, refuse_impossible_text, translated
from taskplatform.store.statements import (
    Call,
    Running,
    announce_call,
    call,
    load_call,
    lost_call,
    read_loaded,
    read_saved,
    read_turn,
    renew_call,
    save_call,
    turn_calls,
)
from taskplatform.store.working import Claimed, ClaimRequest, Ending, Lease
from taskplatform.task import TaskSpec

_Rows = Sequence[Sequence[str | None]]
T = TypeVar("T")

_TRIES = 6
_PAUSE_SECONDS = 0.01


class PostgresWorkStore:
    """WorkStore on Postgres, on one connection that is made when it is needed and again after it broke.

    `dsn` is a libpq connection string. For one thread. Raises SettingsError for a malformed `dsn`.
    """

    def __init__(self, dsn: str) -> None:
        self._conninfo = complete(dsn)
        self._connection: psycopg.Connection[TupleRow] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call would make a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def turn(self, endings: Sequence[Ending], claim: ClaimRequest | None) -> tuple[set[UUID], list[Claimed]]:
        """Send a turn in one round trip. Raises InvalidInput for a value that Postgres refuses."""
        calls = turn_calls(endings, claim)
        return read_turn(calls, self._send(calls))

    def renew(self, lease: Lease) -> None:
        """Write the lease."""
        self._send([renew_call(lease)])

    def end_lease(self, worker: str) -> None:
        """Delete the lease."""
        self._send([call("end_lease", worker)])

    def lost(self, running: Sequence[tuple[UUID, int]]) -> set[UUID]:
        """Ask which attempts no longer run."""
        (rows,) = self._send([lost_call(running)])
        return {UUID(row[0]) for row in rows if row[0]}

    def save_checkpoints(self, saved: Mapping[Running, str]) -> set[Running]:
        """Keep checkpoints in the rows of their jobs."""
        return read_saved(saved, self._send([save_call(saved)])[0]) if saved else set()

    def load_checkpoints(self, running: Collection[Running]) -> dict[Running, str | None]:
        """Read checkpoints."""
        return read_loaded(running, self._send([load_call(running)])[0]) if running else {}

    def announce(self, specs: Collection[TaskSpec]) -> None:
        """Store the specs of tasks."""
        if specs:
            self._send([announce_call(specs)])

    def _send(self, calls: Sequence[Call]) -> list[_Rows]:
        if not calls:
            return []
        try:
            return _again_after_deadlock(lambda: self._try(calls))
        except OutcomeUnknown:
            # Every statement here may be sent twice: what the first one did, the second one finds.
            return _again_after_deadlock(lambda: self._try(calls))

    def _try(self, calls: Sequence[Call]) -> list[_Rows]:
        refuse_impossible_text(calls)
        connection = self._connected()
        try:
            with translated(Purpose.WRITE):
                with connection.pipeline():
                    cursors = [connection.execute(made.sql, made.parameters, prepare=True) for made in calls]
                return [cursor.fetchall() if cursor.description else [] for cursor in cursors]
        except (InvalidInput, TryAgain):
            raise
        except BaseException:
            # It may be broken, or one to a former primary, which answers but takes no writes any more.
            self.close()
            raise

    def _connected(self) -> psycopg.Connection[TupleRow]:
        if self._connection is None:
            with translated(Purpose.CONNECT):
                connection = psycopg.connect(self._conninfo, autocommit=True, cursor_factory=RawCursor)
            # Whoever sends these statements reads the text of the answers.
            for kind in ("uuid", "int4"):
                connection.adapters.register_loader(kind, TextLoader)
            self._connection = connection
        return self._connection


def _again_after_deadlock(ask: Callable[[], T]) -> T:
    for tried in range(_TRIES):
        try:
            return ask()
        except TryAgain:
            time.sleep(_PAUSE_SECONDS * random.random() * 2**tried)
    raise StoreUnavailable("Postgres undid the transaction again and again for the sake of others")
