"""What psycopg's errors mean to whoever asked the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum

import psycopg

from taskplatform.errors import InvalidInput, OutcomeUnknown, ShardMoved, StoreUnavailable, TaskplatformError
from taskplatform.store.statements import Call


class Purpose(Enum):
    """What was under way when an error struck."""

    CONNECT = "connect"
    READ = "read"
    WRITE = "write"


class CutOff(StoreUnavailable):
    """Nothing happened, since the connection went away under a read or leads to a server that takes no writes.

    A new one may do.
    """


class TryAgain(TaskplatformError):
    """Postgres undid the transaction for the sake of another one; the same again will do."""


_STRANGER = "TP001"
_READ_ONLY = "25006"
_CANCELLED = "57014"
_CHECK = "23514"
_NO_CONNECTION = ("08", "57P")
# A disk that fails, and what Postgres cannot explain itself: it may be done all the same.
_BROKEN = ("58", "XX")
# Postgres ends a session that says nothing for too long within a transaction, which it undoes first.
_IDLE = "25P03"
_NOT_NOW = ("53", "55P03", _CANCELLED, _IDLE)


def refuse_impossible_text(calls: Sequence[Call]) -> None:
    """Raise InvalidInput for text that Postgres cannot hold, before any part of a transaction was sent."""
    try:
        for call in calls:
            if any(b"\0" in text.encode() for text in call.parameters if text is not None):
                raise InvalidInput("text with a NUL character cannot be stored", code="impossible_text")
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"text that is not Unicode cannot be stored: {error.reason}", code="impossible_text"
        ) from None


@contextmanager
def translated(purpose: Purpose) -> Iterator[None]:
    """Turn psycopg's errors into the store's.

    Raises InvalidInput for values that Postgres refuses and for a search that took too long, TryAgain for a deadlock
    and for a partition that came meanwhile, StoreUnavailable when nothing happened, and OutcomeUnknown when the
    connection went away or Postgres failed inside under a write.
    Whatever else Postgres says is a fault of ours and passes.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidInput(f"text that is not Unicode: {error.reason}", code="impossible_text") from None
    except psycopg.Error as error:
        meaning = _meaning(error, purpose)
        if meaning is None:
            raise
        raise meaning from error


def _meaning(error: psycopg.Error, purpose: Purpose) -> TaskplatformError | None:
    code = error.sqlstate or ""
    text = _line(error)
    if code == _CANCELLED and purpose is Purpose.READ:
        return InvalidInput("the search takes too long: narrow it down", code="search_too_slow")
    if code == _STRANGER or code.startswith("40"):
        return ShardMoved(text) if code == _STRANGER else TryAgain(text)
    if code == _READ_ONLY:
        return CutOff(f"Postgres takes no writes there: {text}")
    if code.startswith(_NOT_NOW):
        return StoreUnavailable(f"Postgres did not do it: {text}")
    if code == _CHECK and error.diag.constraint_name is None:
        # A partition came between the choice of one and the write; the next try finds it.
        return TryAgain(text)
    if code.startswith(("22", "23")) or (not code and isinstance(error, psycopg.DataError)):
        return InvalidInput(f"Postgres refuses a value: {text}")
    if purpose is Purpose.CONNECT:
        return StoreUnavailable(f"Postgres cannot be reached: {text}")
    return _broken_off(error, purpose)


def _broken_off(error: psycopg.Error, purpose: Purpose) -> TaskplatformError | None:
    code = error.sqlstate or ""
    gone = code.startswith(_NO_CONNECTION) or (not code and isinstance(error, psycopg.OperationalError))
    if not gone and not code.startswith(_BROKEN):
        return None
    text = f"{'the connection to Postgres went away' if gone else 'Postgres failed inside'}: {_line(error)}"
    if purpose is Purpose.WRITE:
        return OutcomeUnknown(text)
    return CutOff(text) if gone else StoreUnavailable(text)


def _line(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error) or type(error).__name__).split())
