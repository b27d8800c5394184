"""A bare connection to a server that answers nonsense, or goes away: it says so, and lets itself be closed."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Thread

import psycopg
import pytest
from psycopg.pq import ConnStatus, ExecStatus

from taskplatform.errors import StoreUnavailable
from taskplatform.servers import Postgres
from taskplatform.store.postgres.raw import RawConnection
from tests.fixtures.proxy import NewProxy, Proxy
from tests.fixtures.waiting import eventually

_NONSENSE = b"\0" * 64
_WELCOME = b"R\0\0\0\x08\0\0\0\0"
"""AuthenticationOk (PostgreSQL manual, 55.7 "Message Formats")."""


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """Answer whoever connects with this and hang up; gives the port."""

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1024)
                    connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Wakes the thread that waits in accept.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def proxy(postgres: Postgres, new_proxy: NewProxy) -> Proxy:
    """A proxy in front of Postgres."""
    return new_proxy(postgres.port)


@pytest.fixture
def proxied(database: str, postgres: Postgres, proxy: Proxy) -> str:
    """The DSN of a database behind the proxy."""
    return database.replace(f":{postgres.port}/", f":{proxy.port}/")


@pytest.mark.parametrize("mode", ["disable", "prefer"])
@pytest.mark.parametrize(
    "reply",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", _WELCOME, _WELCOME + _NONSENSE],
    ids=["nothing", "HTTP", "welcome", "nonsense"],
)
def test_a_server_that_speaks_something_else_cannot_be_reached(reply: bytes, mode: str) -> None:
    with answering(reply) as port, pytest.raises(StoreUnavailable, match="cannot be reached"):
        RawConnection(f"postgresql://postgres@127.0.0.1:{port}/nothing?sslmode={mode}")


def test_one_of_several_clusters_that_answers_nonsense_cannot_be_reached(
    database: str, proxy: Proxy, proxied: str
) -> None:
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(database) as holder, psycopg.connect(database, autocommit=True) as watch:
        holder.execute("LOCK TABLE shard_maps")
        with ThreadPoolExecutor() as apart:
            made = apart.submit(RawConnection, proxied, 0)
            eventually(lambda: watch.execute(query).fetchone() is not None)
            proxy.say(_NONSENSE)

            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                made.result(60)


def test_a_connection_that_went_away_can_be_closed_and_again(proxy: Proxy, proxied: str) -> None:
    connection = RawConnection(proxied)
    proxy.cut()
    answer = connection.pgconn.exec_(b"SELECT 1")

    connection.close()
    connection.close()

    assert (answer.status, connection.pgconn.status) == (ExecStatus.FATAL_ERROR, ConnStatus.BAD)
