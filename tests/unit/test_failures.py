"""What Postgres' errors mean to whoever asked the store."""

import psycopg
import pytest

from taskplatform.errors import OutcomeUnknown, StoreUnavailable, TaskplatformError
from taskplatform.store.postgres.failures import CutOff, Purpose, translated


@pytest.mark.parametrize("code", ["58030", "XX000", "XX001"])
@pytest.mark.parametrize(
    ("purpose", "meaning"),
    [
        (Purpose.WRITE, OutcomeUnknown),
        (Purpose.READ, StoreUnavailable),
        (Purpose.CONNECT, StoreUnavailable),
    ],
)
def test_a_disk_that_fails_and_an_internal_error_leave_a_write_in_doubt(
    code: str, purpose: Purpose, meaning: type[TaskplatformError]
) -> None:
    with pytest.raises(TaskplatformError) as raised, translated(purpose):
        raise psycopg.errors.lookup(code)("could not fsync file")

    assert type(raised.value) is meaning


def test_a_session_that_was_ended_for_its_silence_has_changed_nothing() -> None:
    with pytest.raises(StoreUnavailable), translated(Purpose.WRITE):
        raise psycopg.errors.lookup("25P03")("terminating connection due to idle-in-transaction timeout")


def test_a_connection_that_goes_away_under_a_read_may_be_replaced() -> None:
    with pytest.raises(CutOff), translated(Purpose.READ):
        raise psycopg.OperationalError("server closed the connection unexpectedly")


def test_a_statement_that_postgres_does_not_understand_is_a_fault_of_ours() -> None:
    with pytest.raises(psycopg.errors.UndefinedColumn), translated(Purpose.READ):
        raise psycopg.errors.UndefinedColumn("no such column")
