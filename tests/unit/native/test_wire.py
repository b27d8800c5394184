"""What the client for load makes of answers that are whole, cut off, late, or none."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from taskplatform.servers import free_ports
from tests.native.wire import Answer, Connection, CutOff, NotSent, read_answer

T = TypeVar("T")
OK = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nRetry-After: 3\r\n\r\n{}"
ANSWER = Answer(status=202, body=b"{}", retry_after_seconds=3.0)


class Server:
    """Sends the next of its answers for each request, and ends when it has none left."""

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.connections += 1
        try:
            while self._answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                writer.write(self._answers.pop(0))
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def with_server(server: Server, ask: Callable[[Connection], Awaitable[T]], *, seconds: float = 30.0) -> T:
    async def run() -> T:
        async with await asyncio.start_server(server.serve, "127.0.0.1") as listening:
            connection = Connection(listening.sockets[0].getsockname()[1], "key", timeout_seconds=seconds)
            try:
                return await ask(connection)
            finally:
                connection.close()

    return asyncio.run(run())


async def _twice(connection: Connection) -> list[Answer]:
    return [await connection.ask("POST", "/v1/jobs", b"[1]", idempotency_key=key) for key in (None, "k")]


def test_an_answer_is_read_when_it_is_whole() -> None:
    assert [read_answer(OK[:size]) for size in range(len(OK))] == [None] * len(OK)
    assert read_answer(OK) == ANSWER


def test_requests_share_a_connection() -> None:
    server = Server(OK, OK)

    answers = with_server(server, _twice)

    assert answers == [ANSWER] * 2
    assert server.connections == 1
    plain, keyed = server.requests
    assert plain.startswith(b"POST /v1/jobs HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer key\r\n" in plain
    assert plain.endswith(b"\r\nContent-Length: 3\r\n\r\n[1]")
    assert b"\r\nIdempotency-Key: k\r\n" in keyed


def test_after_the_last_answer_of_a_connection_another_is_opened() -> None:
    last = OK.replace(b"Retry-After: 3", b"Connection: Close")
    server = Server(last, OK)

    answers = with_server(server, _twice)

    assert [answer.last for answer in answers] == [True, False]
    assert server.connections == 2


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(OK[:-1], id="cut off in the body"),
        pytest.param(OK[:20], id="cut off in the head"),
        pytest.param(b"", id="no answer"),
        pytest.param(OK + OK, id="two answers"),
        pytest.param(OK.replace(b"HTTP", b"SMTP"), id="not HTTP"),
        pytest.param(OK.replace(b"202", b"two"), id="no status"),
    ],
)
def test_what_is_no_whole_answer_is_unknown(broken: bytes) -> None:
    with pytest.raises(CutOff):
        with_server(Server(broken), lambda connection: connection.ask("GET", "/"))


def test_an_answer_that_does_not_come_in_time_is_unknown() -> None:
    async def scenario(connection: Connection) -> None:
        with pytest.raises(CutOff, match="in time"):
            await connection.ask("GET", "/")

    with_server(Server(b"", OK), scenario, seconds=0.01)


def test_where_nobody_listens_nothing_was_sent() -> None:
    with pytest.raises(NotSent):
        asyncio.run(Connection(free_ports(1)[0], "key").ask("GET", "/"))
