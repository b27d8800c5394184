"""A process that is told to stop sends its callers elsewhere first: behind a load balancer no request is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import httpx2
import msgspec
import pytest

from taskplatform.servers import Command, HAProxy, Process, free_ports, started
from taskplatform.servers.configuration import CLEAN_ENVIRONMENT
from taskplatform.settings import Settings, environment_of
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import EVERY_SCOPE, add_key
from tests.native.wire import Connection, CutOff, NotSent

ROOT = Path(__file__).parents[3]
CALLERS = 8
MOST_REQUESTS = 20_000
JOB = msgspec.json.encode({"task": "photos.thumbnail", "args": ["x"]})

Begin = Callable[[Settings], Process]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts API processes, each ready when this returns, and ends those that still run."""
    with ExitStack() as cleanup:

        def begin(settings: Settings) -> Process:
            process = Process(
                Command(
                    name="the API",
                    argv=(sys.executable, "-m", "api"),
                    log=tmp_path / f"api-{settings.api_port}.log",
                    env={**CLEAN_ENVIRONMENT, **environment_of(settings), "PYTHONPATH": str(ROOT)},
                )
            )
            cleanup.callback(process.kill)
            process.start(lambda: _readiness(settings.api_port) == (200, "ready"))
            return process

        yield begin


def test_processes_behind_a_load_balancer_restart_without_a_failed_request(
    api_settings: Settings, database: str, begin: Begin, server_folder: Path
) -> None:
    default = Settings.model_fields["api_drain_seconds"].default
    each = [api_settings.changed(api_port=port, api_drain_seconds=default) for port in free_ports(2)]
    processes = [begin(settings) for settings in each]
    key = add_key(database, "acme", EVERY_SCOPE)
    done = Event()

    with (
        started(HAProxy(server_folder, (each[0].api_port, each[1].api_port))) as balancer,
        ThreadPoolExecutor(1) as thread,
    ):
        eventually(lambda: _up(balancer) == {"api-1", "api-2"})
        load = thread.submit(asyncio.run, _call(balancer.port, key, done))
        try:
            for settings, process in zip(each, processes, strict=True):
                process.stop()
                begin(settings)
                eventually(lambda: _up(balancer) == {"api-1", "api-2"})
        finally:
            done.set()
        answers = load.result(60)

    assert set(answers) == {"200", "202"}
    assert 100 < answers.total() < CALLERS * MOST_REQUESTS


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_that_leaves_still_answers_and_keeps_no_connection_until_it_is_told_again(
    api_settings: Settings, database: str, begin: Begin, processes: int
) -> None:
    (port,) = free_ports(1)
    process = begin(api_settings.changed(api_port=port, api_processes=processes, api_drain_seconds=60))
    key = add_key(database, "acme", EVERY_SCOPE)

    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}) as client:
        kept = _post(client)
        os.kill(process.pid, signal.SIGTERM)
        # Of two processes one hears of it before the other.
        left = eventually(lambda: [answer for answer in (_post(client),) if "connection" in answer.headers])[0]
        eventually(lambda: _readiness(port) == (503, "leaving"))

    assert (kept.status_code, kept.headers.get("connection")) == (202, None)
    assert (left.status_code, left.headers["connection"]) == (202, "close")
    _insist(process)


def test_a_stop_that_all_processes_hear_twice_is_no_hurry(api_settings: Settings, database: str, begin: Begin) -> None:
    (port,) = free_ports(1)
    process = begin(api_settings.changed(api_port=port, api_processes=2, api_drain_seconds=60))
    key = add_key(database, "acme", EVERY_SCOPE)

    os.killpg(process.pid, signal.SIGTERM)
    # The parent has told its children again by the time it lets go of the port.
    eventually(lambda: not _listens(process.pid))
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}) as client:
        answers = Counter(_post(client).status_code for _ in range(200))

    assert answers == {202: 200}
    _insist(process)


def test_nobody_connects_to_a_port_behind_which_requests_are_only_finished(
    api_settings: Settings, database: str, begin: Begin
) -> None:
    (port,) = free_ports(1)
    process = begin(api_settings.changed(api_port=port, api_processes=2, api_drain_seconds=0))
    key = add_key(database, "acme", EVERY_SCOPE)
    head = [
        *("POST /v1/jobs HTTP/1.1", "Host: api", f"Authorization: Bearer {key}", "Content-Type: application/json"),
        *("Content-Length: 100", "Expect: 100-continue", "", ""),
    ]

    with socket.create_connection(("127.0.0.1", port), 10) as under_way:
        under_way.sendall("\r\n".join(head).encode())
        assert under_way.recv(100).startswith(b"HTTP/1.1 100 ")
        os.kill(process.pid, signal.SIGTERM)
        eventually(lambda: _refused(port), 5)
        still_there = process.alive

    assert still_there
    assert process.wait(30) in (0, -signal.SIGTERM)


def _insist(process: Process) -> None:
    # What comes within a second of the first signal counts as the same one.
    def ended() -> bool:
        if process.alive:
            os.kill(process.pid, signal.SIGTERM)
        return not process.alive

    eventually(ended, 30)
    assert process.wait(1) in (0, -signal.SIGTERM)


def _listens(pid: int) -> bool:
    try:
        sockets = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    except FileNotFoundError:
        # One was closed while it was looked at.
        return True
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(f"socket:[{row[9]}]" in sockets for row in rows if row[3] == "0A")


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def _post(client: httpx2.Client) -> httpx2.Response:
    return client.post("/v1/jobs", content=JOB, headers={"Content-Type": "application/json"})


async def _call(port: int, key: str, done: Event) -> Counter[str]:
    told: Counter[str] = Counter()

    async def caller() -> None:
        connection = Connection(port, key)
        for number in range(MOST_REQUESTS):
            if done.is_set():
                break
            try:
                answer = await (
                    connection.ask("POST", "/v1/jobs", JOB) if number % 2 else connection.ask("GET", "/v1/key")
                )
                told[str(answer.status)] += 1
            except (CutOff, NotSent) as error:
                told[repr(error)] += 1
        connection.close()

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return told


def _readiness(port: int) -> tuple[int, str]:
    try:
        answer = httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=5)
    except httpx2.TransportError:
        return 0, ""
    return answer.status_code, answer.json()["status"]


def _up(balancer: HAProxy) -> set[str]:
    table = httpx2.get(f"http://127.0.0.1:{balancer.stats_port}/;csv", timeout=5).text
    rows = [line.split(",") for line in table.splitlines()]
    return {row[1] for row in rows if row[0] == "api" and row[1].startswith("api-") and row[17].startswith("UP")}
