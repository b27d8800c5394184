"""Workers as pods: what the driver asks of an API server."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

from taskplatform.autoscale.drivers.kubernetes import DELETION_COST, Pods
from taskplatform.errors import DriverUnavailable

T = TypeVar("T")


def a_pod(name: str, *, phase: str = "Running", going: bool = False, cost: str | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    if cost is not None:
        metadata["annotations"] = {DELETION_COST: cost}
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    return {"metadata": metadata, "status": {"phase": phase}}


@dataclass
class Cluster:
    """An API server that writes down what it is asked."""

    account: Path
    pods: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    url: str = ""

    def ask(self, call: Callable[[Pods], Coroutine[Any, Any, T]]) -> T:
        async def ask() -> T:
            driver = Pods(deployment="tp-worker-{pool}", account=self.account, server=self.url)
            try:
                return await call(driver)
            finally:
                await driver.close()

        return asyncio.run(ask())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("jobs")
    found = Cluster(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._do("GET")

        def do_PATCH(self) -> None:
            self._do("PATCH")

        def _do(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            found.asked.append((method, self.path, body))
            found.headers.append(dict(self.headers))
            text = json.dumps({"items": found.pods}).encode()
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield found
        server.shutdown()
        thread.join()


def test_pods_that_go_drain_and_pods_that_ended_are_no_members(cluster: Cluster) -> None:
    cluster.pods = [a_pod("a"), a_pod("b", going=True), a_pod("c", phase="Failed"), a_pod("d", phase="Pending")]

    members = cluster.ask(lambda driver: driver.members("gpu"))

    assert [(member.id, member.host, member.draining) for member in members] == [
        ("a", "a", False),
        ("b", "b", True),
        ("d", "d", False),
    ]
    assert cluster.asked[0][:2] == ("GET", "/api/v1/namespaces/jobs/pods?labelSelector=taskplatform%2Fpool%3Dgpu")


def test_a_fleet_grows_by_the_scale_of_its_deployment(cluster: Cluster) -> None:
    cluster.ask(lambda driver: driver.grow("gpu", 4))

    scale = "/apis/apps/v1/namespaces/jobs/deployments/tp-worker-gpu/scale"
    assert cluster.asked[0] == ("PATCH", scale, {"spec": {"replicas": 4}})
    assert [method for method, *_ in cluster.asked[1:]] == ["GET"]
    assert cluster.headers[0]["Content-Type"] == "application/merge-patch+json"


def test_those_who_are_to_go_are_marked_before_the_deployment_shrinks(cluster: Cluster) -> None:
    cluster.pods = [a_pod("a"), a_pod("b")]
    _, victim = cluster.ask(lambda driver: driver.members("gpu"))

    cluster.ask(lambda driver: driver.shrink("gpu", [victim], 1))

    _, mark, _, scale = cluster.asked
    assert mark[:2] == ("PATCH", "/api/v1/namespaces/jobs/pods/b")
    assert mark[2] == {"metadata": {"annotations": {DELETION_COST: "-1000"}}}
    assert scale[2] == {"spec": {"replicas": 1}}


def test_a_pod_that_stays_after_all_is_no_longer_the_first_to_go(cluster: Cluster) -> None:
    cluster.pods = [
        a_pod("stays", cost="-1000"),
        a_pod("goes", cost="-1000", going=True),
        a_pod("its owner's", cost="7"),
        a_pod("idle"),
    ]
    _, _, _, idle = cluster.ask(lambda driver: driver.members("gpu"))

    cluster.ask(lambda driver: driver.grow("gpu", 4))
    grown, cluster.asked = cluster.asked, []
    cluster.ask(lambda driver: driver.shrink("gpu", [idle], 3))

    clearing = ("PATCH", "/api/v1/namespaces/jobs/pods/stays", {"metadata": {"annotations": {DELETION_COST: None}}})
    for asked in (grown, cluster.asked):
        assert [
            one for one in asked if one[2] and one[2].get("metadata", {}).get("annotations") == {DELETION_COST: None}
        ] == [clearing]


def test_the_token_is_read_for_every_request_because_it_changes(cluster: Cluster) -> None:
    cluster.ask(lambda driver: driver.members("gpu"))
    (cluster.account / "token").write_text("second")
    cluster.ask(lambda driver: driver.members("gpu"))

    assert [one["Authorization"] for one in cluster.headers] == ["Bearer first", "Bearer second"]


def test_an_api_server_that_refuses_is_no_crash(cluster: Cluster) -> None:
    cluster.status = 403

    with pytest.raises(DriverUnavailable, match="403"):
        cluster.ask(lambda driver: driver.grow("gpu", 4))


def test_a_process_outside_of_a_cluster_says_so(cluster: Cluster) -> None:
    (cluster.account / "token").unlink()

    with pytest.raises(DriverUnavailable, match="no service account"):
        cluster.ask(lambda driver: driver.grow("gpu", 4))
