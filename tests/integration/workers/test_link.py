"""The worker's line to Postgres, on a hub that a test turns by hand: each request is answered once, whatever breaks."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import pytest
from kombu.asynchronous import Hub

from taskplatform.servers import Postgres
from taskplatform.store.postgres.raw import RawConnection
from taskplatform.store.statements import Call
from tests.fixtures.proxy import NewProxy, Proxy
from tests.fixtures.waiting import eventually
from workers.link import Answer, Connection, Link, Refused, Rows
from workers.loop import Loop


@dataclass
class Line:
    """A link, its hub, and what was answered."""

    connect: Callable[[], Connection]
    answers: list[Answer] = field(default_factory=list)
    hub: Hub = field(default_factory=Hub)

    def __post_init__(self) -> None:
        loop = Loop()
        loop.attach(self.hub)
        self.link = Link(loop, self.connect)
        self._turns = self.hub.create_loop()

    def ask(self, *statements: str) -> None:
        self.link.ask([Call(sql, sql, ()) for sql in statements], self.answers.append)

    def turn_until(self, condition: Callable[[], object]) -> None:
        """Turn the hub until something is so."""

        def turned() -> object:
            self.hub.call_later(0.01, lambda: None)
            next(self._turns)
            return condition()

        eventually(turned)

    def answered(self, count: int) -> list[Answer]:
        """Turn the hub until so many requests were answered; gives all answers."""
        self.turn_until(lambda: len(self.answers) >= count)
        return self.answers


@pytest.fixture
def proxy(postgres: Postgres, new_proxy: NewProxy) -> Proxy:
    """A proxy in front of Postgres."""
    return new_proxy(postgres.port)


@pytest.fixture
def line(database: str, postgres: Postgres, proxy: Proxy) -> Iterator[Line]:
    """A line to a database, through the proxy."""
    line = Line(lambda: RawConnection(database.replace(f":{postgres.port}/", f":{proxy.port}/")))
    yield line
    line.link.close()
    line.hub.close()


def blocked(watch: psycopg.Connection) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return watch.execute(query).fetchone() is not None


def test_a_row_whose_partition_came_meanwhile_goes_there(line: Line, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as watch, psycopg.connect(database) as maker:
        watch.execute("CREATE TABLE days (day int) PARTITION BY LIST (day)")
        watch.execute("CREATE TABLE days_default PARTITION OF days DEFAULT")
        watch.execute("CREATE TABLE days_1 (day int)")
        maker.execute("ALTER TABLE days ATTACH PARTITION days_1 FOR VALUES IN (1)")
        line.link.start()
        line.ask("INSERT INTO days VALUES (1)", "SELECT 1")
        line.turn_until(lambda: blocked(watch))

        maker.commit()

        assert line.answered(1) == [Rows([[], [("1",)]])]
        assert watch.execute("SELECT day FROM days_1").fetchall() == [(1,)]


def test_a_value_that_a_constraint_of_the_table_refuses_is_refused(line: Line) -> None:
    line.link.start()
    line.ask("CREATE TABLE days (day int CONSTRAINT in_time CHECK (day > 0))")
    line.ask("INSERT INTO days VALUES (0)")
    line.ask("SELECT count(*) FROM days")

    _, refused, counted = line.answered(3)

    assert isinstance(refused, Refused)
    assert "in_time" in refused.detail
    assert counted == Rows([[("0",)]])


def test_a_line_for_which_there_is_no_thread_tries_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [RuntimeError("can't start new thread")] * 2
    start = threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        if thread.name == "postgres-connect" and refusals:
            raise refusals.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", begin)
    line.link.start()
    line.ask("SELECT 1")

    assert line.answered(1) == [Rows([[("1",)]])]
    assert refusals == []


@contextmanager
def kept_waiting(line: Line, database: str) -> Iterator[None]:
    """Have a request wait for a lock until the connection is gone, whichever way that happens."""
    with psycopg.connect(database, autocommit=True) as watch, psycopg.connect(database) as holder:
        watch.execute("CREATE TABLE days (day int)")
        holder.execute("LOCK TABLE days")
        line.link.start()
        line.ask("SELECT count(*) FROM days")
        line.turn_until(lambda: blocked(watch))
        yield
        line.turn_until(lambda: not line.link.connected)


def test_a_request_that_was_cut_off_is_sent_again(line: Line, proxy: Proxy, database: str) -> None:
    with kept_waiting(line, database):
        proxy.cut()

    assert line.answered(1) == [Rows([[("0",)]])]


def test_a_reply_that_is_none_costs_the_connection_and_no_answer(
    line: Line, proxy: Proxy, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.link._ANSWER_WITHIN_SECONDS", 3600.0)
    with kept_waiting(line, database):
        proxy.say(b"\0" * 64)

    assert line.answered(1) == [Rows([[("0",)]])]


def said(kind: bytes, body: bytes) -> bytes:
    """One message of a server, as Postgres' protocol has it."""
    return kind + struct.pack("!i", len(body) + 4) + body


def an_error(severity: bytes, code: bytes) -> bytes:
    return said(b"E", b"S%b\0V%b\0C%b\0Mno\0\0" % (severity, severity, code))


ANSWER = said(b"2", b"") + said(b"n", b"") + said(b"C", b"SELECT 0\0")
READY = said(b"Z", b"I")


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(ANSWER + an_error(b"ERROR", b"40001") + READY, id="a commit that is refused"),
        pytest.param(ANSWER + an_error(b"FATAL", b"57P01"), id="an end at the commit"),
        pytest.param(an_error(b"ERROR", b"22003") + an_error(b"FATAL", b"57P01"), id="an end after an error"),
        pytest.param(ANSWER + READY + b"\0" * 64, id="nonsense after an answer"),
    ],
)
def test_a_reply_with_more_in_it_than_was_asked_for_costs_the_connection_and_no_answer(
    line: Line, proxy: Proxy, database: str, reply: bytes
) -> None:
    with psycopg.connect(database, autocommit=True) as watch, psycopg.connect(database) as holder:
        watch.execute("CREATE TABLE days (day int)")
        line.link.start()
        line.ask("SELECT count(*) FROM days")
        line.answered(1)
        holder.execute("LOCK TABLE days")
        holder.execute("INSERT INTO days VALUES (1)")
        line.ask("SELECT count(*) FROM days")
        line.turn_until(lambda: blocked(watch))

        proxy.say(reply)
        proxy.cut()
        line.turn_until(lambda: not line.link.connected)
        holder.commit()

        assert line.answered(2) == [Rows([[("0",)]]), Rows([[("1",)]])]
