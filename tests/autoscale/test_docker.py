"""Workers as containers: the driver and the agent as they are, before an engine whose containers only stand."""

import asyncio
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest

from taskplatform.autoscale.agent import Agent, Engine, serve
from taskplatform.autoscale.contract import Member
from taskplatform.autoscale.drivers.docker import Containers
from taskplatform.autoscale.load import size_with_silent, standings
from taskplatform.errors import DriverUnavailable
from taskplatform.servers import free_ports
from tests.autoscale.engine import Shelf, serving
from tests.fixtures.waiting import eventually

TOKEN = "a secret between the two"
MOST = 3
"""The maximum of the pool."""
T = TypeVar("T")


@dataclass
class Dock:
    """A shelf, the agent before it, and a driver; every call is made on its own."""

    shelf: Shelf
    url: str

    def ask(self, call: Callable[[Containers], Coroutine[Any, Any, T]], token: str = TOKEN) -> T:
        async def ask() -> T:
            driver = Containers(self.url, token, service="worker-{pool}", grace_seconds=90.0)
            try:
                return await call(driver)
            finally:
                await driver.close()

        return asyncio.run(ask())

    def stop(self, *victims: Member) -> None:
        self.ask(lambda driver: driver.shrink("default", victims, 0))

    def members(self) -> list[Member]:
        return self.ask(lambda driver: driver.members("default"))


@pytest.fixture
def dock() -> Iterator[Dock]:
    """An agent of the project `shop` for the pool `default`."""
    shelf = Shelf()
    # A socket's path has about a hundred characters at most.
    folder = Path(tempfile.mkdtemp(prefix="tp-"))
    try:
        with serving(shelf, folder / "engine.sock"):
            agent = Agent(Engine(str(folder / "engine.sock")), "shop", {"worker-default"}, MOST)
            with serve(agent, TOKEN, "127.0.0.1", 0) as server:
                thread = threading.Thread(target=server.serve_forever)
                thread.start()
                yield Dock(shelf, f"http://127.0.0.1:{server.server_address[1]}")
                shelf.let_stop.set()
                server.shutdown()
                thread.join()
    finally:
        shutil.rmtree(folder)


def test_a_fleet_grows_by_copies_of_a_container_that_runs(dock: Dock) -> None:
    first = dock.shelf.put("worker-default")

    dock.ask(lambda driver: driver.grow("default", 3))

    template, *copies = dock.shelf.containers.values()
    assert [member.id for member in dock.members()] == [template["Id"], *(copy["Id"] for copy in copies)]
    assert [copy["Config"]["Labels"]["com.docker.compose.container-number"] for copy in copies] == ["2", "3"]
    for copy in copies:
        assert copy["Config"]["Cmd"] == template["Config"]["Cmd"]
        assert copy["Config"]["User"] == "10001"
        assert copy["HostConfig"] == template["HostConfig"]
        assert set(copy["NetworkSettings"]["Networks"]) == {"internal", "edge"}
        assert copy["Image"] == "sha256:1"
    assert first == template["Id"]


def test_a_container_drains_until_it_has_ended_and_the_last_one_is_kept_to_be_copied(dock: Dock) -> None:
    dock.shelf.put("worker-default")
    dock.shelf.put("worker-default", number=2)
    members = dock.members()

    dock.stop(*members)
    assert {member.draining for member in dock.members()} == {True}
    dock.shelf.let_stop.set()
    eventually(lambda: dock.shelf.states() == ["exited"], 30.0)

    assert dock.members() == []
    assert {path.partition("?")[2] for method, path, _ in dock.shelf.asked if "/stop" in path} == {"t=100"}
    dock.ask(lambda driver: driver.grow("default", 1))
    assert dock.shelf.states() == ["running"]


def test_a_container_that_drains_is_replaced_and_not_counted(dock: Dock) -> None:
    dock.shelf.put("worker-default")
    victims = dock.members()
    dock.stop(*victims)

    dock.ask(lambda driver: driver.grow("default", 1))

    assert [member.draining for member in dock.members()] == [True, False]


def test_a_full_fleet_gets_a_container_in_the_place_of_each_that_is_silent(dock: Dock) -> None:
    for number in range(MOST):
        dock.shelf.put("worker-default", number=number + 1)
    silent = [replace(one, absent=True, silent=True) for one in standings(dock.members(), [])]

    dock.ask(lambda driver: driver.grow("default", size_with_silent(silent, MOST, MOST)))

    assert len(dock.members()) == 2 * MOST


def test_the_agent_starts_no_more_than_twice_of_what_it_was_told(dock: Dock) -> None:
    dock.shelf.put("worker-default")

    with pytest.raises(DriverUnavailable, match="6 containers of worker-default run: no more are allowed"):
        dock.ask(lambda driver: driver.grow("default", 9))

    assert len(dock.shelf.containers) == 2 * MOST


def test_the_agent_touches_no_other_service_nor_another_project(dock: Dock) -> None:
    dock.shelf.put("worker-default")
    other = dock.shelf.put("postgres")
    foreign = dock.shelf.put("worker-default", project="bank")
    stolen = [Member(id=name, pool="default", host="h", pid=None, age_seconds=9.0) for name in (other, foreign)]

    for victim in stolen:
        with pytest.raises(DriverUnavailable, match="has no container"):
            dock.stop(victim)
    with pytest.raises(DriverUnavailable, match="none of the services"):
        dock.ask(lambda driver: driver.members("other"))
    assert dock.shelf.states() == ["running"] * 3


@pytest.mark.parametrize("body", [b"", b"[" * 4090, b'{"grace_seconds": true}', b'{"grace_seconds": NaN}', b"\xff"])
def test_a_stop_without_a_grace_that_is_a_number_stops_nothing(dock: Dock, body: bytes) -> None:
    container = dock.shelf.put("worker-default")
    path = f"/v1/services/worker-default/members/{container}/stop"

    with httpx2.Client(trust_env=False) as client:
        answer = client.post(dock.url + path, content=body, headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code == 400
    assert "grace_seconds" in answer.json()["error"]


def test_what_is_no_http_is_answered(dock: Dock) -> None:
    host, port = dock.url.removeprefix("http://").split(":")

    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"garbage\r\n\r\n")
        answer = line.makefile("rb").read()

    assert b"400" in answer


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [
        ("GET", "/v1/services/worker-default/members", "wrong", 401),
        ("POST", "/v1/services/worker-default/members", "none", 401),
        ("GET", "/v1/services/worker-default/../containers", TOKEN, 404),
        ("POST", "/v1/services/worker-default/members/zz/stop", TOKEN, 404),
        ("POST", f"/v1/services/worker-default/members/{'0' * 63}1/stop", TOKEN, 400),
        ("GET", f"/v1/services/worker-default/members/{'0' * 63}1/stop", TOKEN, 404),
        ("GET", "/containers/json", TOKEN, 404),
        ("DELETE", "/v1/services/worker-default/members", TOKEN, 501),
        ("GET", "/healthz", "none", 200),
    ],
)
def test_list_start_and_stop_are_all_that_the_agent_does(
    dock: Dock, method: str, path: str, token: str, status: int
) -> None:
    dock.shelf.put("worker-default")

    with httpx2.Client(trust_env=False) as client:
        answer = client.request(method, dock.url + path, headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == status
    assert dock.shelf.states() == ["running"]


def test_an_engine_or_an_agent_that_is_away_is_said_to_be(dock: Dock) -> None:
    with pytest.raises(DriverUnavailable, match="no container to start"):
        dock.ask(lambda driver: driver.grow("default", 1))
    dock.url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(DriverUnavailable, match="does not answer"):
        dock.members()


def test_an_agent_that_may_not_use_its_socket_is_not_well(tmp_path: Path) -> None:
    agent = Agent(Engine(str(tmp_path / "engine.sock")), "shop", {"worker-default"}, MOST)
    with serve(agent, TOKEN, "127.0.0.1", 0) as server, ThreadPoolExecutor(1) as thread:
        served = thread.submit(server.handle_request)
        answer = httpx2.get(f"http://127.0.0.1:{server.server_address[1]}/healthz", trust_env=False)
        served.result(30)

    assert (answer.status_code, answer.json()) == (503, {"error": "the engine does not answer: FileNotFoundError"})
