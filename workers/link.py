"""The worker's line to Postgres: libpq on the event loop, one commit per request, replayed until answered."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from psycopg import Error
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from taskplatform.errors import TaskplatformError
from taskplatform.store.statements import Call, call
from taskplatform.telemetry import logger
from workers.loop import Loop

_PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
_ANSWER_WITHIN_SECONDS = 15.0
_OF_THE_DATA = ("22", "23")
_CHECK = "23514"
_UNDONE = "40001"
NOT_AT_HOME = "TP001"
"""What the fence of a cluster answers; see `refuse_strangers` in the migrations."""
# Where Postgres warns that it has committed, but waits for no standby any longer. Warnings of its class have no code of
# their own, and their text is translated.
_WAIT_FOR_STANDBYS = b"SyncRepWaitForLSN"

_UNREACHED = "Postgres cannot be reached, will try again"

_log = logger(__name__)

Row = tuple[str | None, ...]


class Connection(Protocol):
    """An open connection."""

    @property
    def pgconn(self) -> PGconn:
        """Libpq's handle."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A request was committed; the rows of each of its calls."""

    rows: list[list[Row]]


@dataclass(frozen=True, slots=True)
class Refused:
    """Postgres refused a value; nothing of the request happened, and the same again would be refused again."""

    detail: str


@dataclass(frozen=True, slots=True)
class NotAtHome:
    """Another cluster is the home of a job that was to get a row here; nothing of the request happened."""


Answer = Rows | Refused | NotAtHome


@dataclass(frozen=True, slots=True)
class _Request:
    calls: Sequence[Call]
    answered: Callable[[Answer], None]


class Link:
    """Sends requests one after the other and calls back with each answer.

    A request is one implicit transaction. It is sent again after a lost connection, after a commit that may not have
    reached a standby, and after a passing trouble of the server, until it is answered; so every call must bear
    repetition. `connect` runs in a thread of its own.
    """

    def __init__(self, loop: Loop, connect: Callable[[], Connection]) -> None:
        self._loop = loop
        self._connect = connect
        self._requests: deque[_Request] = deque()
        self._connection: Connection | None = None
        self._pgconn: PGconn | None = None
        self._fd = -1
        self._prepared: set[str] = set()
        self._preparing: list[str | None] = []
        self._rows: list[list[Row]] = []
        self._trouble: tuple[str, str] | None = None
        self._sent = False
        self._unsure = False
        self._committed_here_alone = False
        self._failures = 0
        self._connecting = False
        self._fresh: Connection | None = None
        self._again = loop.alarm(self._begin_to_connect)
        self._overdue = loop.alarm(self._give_up_waiting)

    @property
    def connected(self) -> bool:
        """Whether Postgres can be spoken to, as far as is known."""
        return self._pgconn is not None

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        return bool(self._requests)

    def start(self) -> None:
        """Connect in the background; needs the loop to have a hub."""
        self._begin_to_connect()

    def ask(self, calls: Sequence[Call], answered: Callable[[Answer], None]) -> None:
        """Queue a request; `answered` is called in the loop, never from here."""
        self._requests.append(_Request(calls, answered))
        self._send_next()

    def poll(self) -> None:
        """Read what may have come in while nobody looked."""
        if self._pgconn is not None:
            self._readable()

    def close(self) -> None:
        """Let go of the connection; what was not answered may or may not have happened."""
        self._again.clear()
        self._hang_up()

    def _begin_to_connect(self) -> None:
        if self._connecting or self._pgconn is not None:
            return
        try:
            threading.Thread(target=self._connect_in_thread, name="postgres-connect", daemon=True).start()
        except RuntimeError as error:
            # The system gives no more threads at the moment.
            _log.warning(_UNREACHED, error=str(error))
            self._try_again_later()
        else:
            self._connecting = True

    def _connect_in_thread(self) -> None:
        try:
            self._fresh = self._connect()
        except (TaskplatformError, OSError, RuntimeError) as error:
            _log.warning(_UNREACHED, error=str(error))
        finally:
            self._loop.call_soon(self._connected)

    def _connected(self) -> None:
        connection, self._fresh, self._connecting = self._fresh, None, False
        if connection is None:
            self._try_again_later()
            return
        try:
            pgconn = connection.pgconn
            pgconn.nonblocking = 1
            pgconn.notice_handler = self._noticed
            pgconn.enter_pipeline_mode()
        except Error:
            connection.close()
            self._try_again_later()
            return
        self._connection, self._pgconn, self._fd = connection, pgconn, pgconn.socket
        self._prepared.clear()
        self._loop.add_reader(self._fd, self._readable)
        self._send_next()

    def _try_again_later(self) -> None:
        pause = _PAUSES_SECONDS[min(self._failures, len(_PAUSES_SECONDS) - 1)]
        self._failures += 1
        self._again.set(pause)

    def _hang_up(self) -> None:
        if self._connection is None:
            return
        self._overdue.clear()
        self._loop.remove_writer(self._fd)
        self._loop.remove_reader(self._fd)
        self._connection.close()
        self._connection = self._pgconn = None
        self._unsure = self._unsure or self._sent
        self._sent = False

    def _lose(self, why: str) -> None:
        _log.warning("the connection to Postgres is lost, will connect again", error=why.strip())
        self._hang_up()
        self._try_again_later()

    def _give_up_waiting(self) -> None:
        self._lose("no answer in time")

    def _send_next(self) -> None:
        pgconn = self._pgconn
        if pgconn is None or self._sent or not self._requests:
            return
        self._sent = True
        self._rows, self._preparing, self._trouble = [], [], None
        self._committed_here_alone = False
        calls = self._requests[0].calls
        try:
            for each in (*calls, call("await_standbys")) if self._unsure else calls:
                name = each.name.encode()
                if each.name not in self._prepared and each.name not in self._preparing:
                    pgconn.send_prepare(name, each.sql.encode())
                    self._preparing.append(each.name)
                pgconn.send_query_prepared(name, [None if p is None else p.encode() for p in each.parameters])
                self._preparing.append(None)
            pgconn.pipeline_sync()
            self._flush(pgconn)
        except (Error, OSError) as error:
            self._lose(str(error))
            return
        self._overdue.set(_ANSWER_WITHIN_SECONDS)

    def _flush(self, pgconn: PGconn) -> None:
        if pgconn.flush():
            self._loop.add_writer(self._fd, self._writable)
        else:
            self._loop.remove_writer(self._fd)

    def _writable(self) -> None:
        if self._pgconn is None:
            return
        try:
            self._flush(self._pgconn)
        except (Error, OSError) as error:
            self._lose(str(error))

    def _readable(self) -> None:
        pgconn = self._pgconn
        if pgconn is None:
            return
        try:
            pgconn.consume_input()
            complete = self._sent and self._read(pgconn)
            if not complete and pgconn.status != ConnStatus.OK:
                raise Error(pgconn.get_error_message())
        except (Error, OSError) as error:
            self._lose(str(error))
            return
        if complete:
            self._conclude()

    def _read(self, pgconn: PGconn) -> bool:
        ends = 0
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                # One None ends the results of a query; two mean that nothing is left to read.
                ends += 1
                if ends > 1:
                    return False
                continue
            ends = 0
            if result.status == ExecStatus.PIPELINE_SYNC:
                return True
            self._take(result)
        return False

    def _take(self, result: PGresult) -> None:
        # A commit that fails, a server that ends and nonsense have a result that nothing was sent for.
        prepared = self._preparing.pop(0) if self._preparing else None
        match result.status:
            case ExecStatus.TUPLES_OK | ExecStatus.COMMAND_OK:
                if prepared is None:
                    self._rows.append(_rows_of(result))
                else:
                    self._prepared.add(prepared)
            case ExecStatus.PIPELINE_ABORTED:
                pass
            case _:
                code = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
                if code == _CHECK and result.error_field(DiagnosticField.CONSTRAINT_NAME) is None:
                    # A partition came between the choice of one and the write; the next try finds it.
                    code = _UNDONE
                self._trouble = code, result.get_error_message()

    def _noticed(self, notice: PGresult) -> None:
        if notice.error_field(DiagnosticField.SOURCE_FUNCTION) == _WAIT_FOR_STANDBYS:
            self._committed_here_alone = True

    def _conclude(self) -> None:
        self._overdue.clear()
        if self._committed_here_alone:
            self._lose("a commit may not have reached a standby")
            return
        self._sent = False
        if self._trouble is None:
            answer: Answer = Rows(self._rows[: len(self._requests[0].calls)])
        else:
            code, text = self._trouble
            if code == NOT_AT_HOME:
                answer = NotAtHome()
            elif not code.startswith(_OF_THE_DATA):
                # A failover, a full disk, a missing migration: nothing happened, and a new connection may do.
                self._lose(f"{text} ({code})")
                return
            else:
                answer = Refused(text.strip())
        self._failures = 0
        self._unsure = False
        request = self._requests.popleft()
        request.answered(answer)
        self._send_next()


def _rows_of(result: PGresult) -> list[Row]:
    columns = range(result.nfields)
    return [
        tuple(None if (value := result.get_value(row, column)) is None else value.decode() for column in columns)
        for row in range(result.ntuples)
    ]
