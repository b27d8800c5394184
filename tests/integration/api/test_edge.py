"""A cache before the API, as a CDN would be: one read upstream, results without an API, no tenant's for another."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from api.app import create_app
from taskplatform.auth import Scope
from taskplatform.job import State
from taskplatform.servers import Nginx, ServerMissing, started
from taskplatform.settings import Settings
from tests.fixtures.servers import without_server
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import EVERY_SCOPE, Service, add_key, run_job, serving

JOB = {"task": "anything", "args": [1]}
READS = 10_000
CONNECTIONS = 20
READ = 'tp_http_requests_total{route="/v1/jobs/{job_id:uuid}",status="200"}'


@pytest.fixture
def edge(service: Service, server_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """The service behind nginx; `service` is the one behind it."""
    try:
        nginx = Nginx(server_folder / tmp_path.name, urlsplit(service.url).port or 0)
    except ServerMissing as missing:
        without_server(str(missing))
    with started(nginx):
        behind = Service(url=f"http://127.0.0.1:{nginx.port}", settings=service.settings, database=service.database)
        yield behind
        behind.close()


def ended(service: Service, state: State = State.SUCCEEDED, tenant: str = "acme") -> str:
    job_id = str(service.client(tenant).post("/v1/jobs", json=JOB).json()["id"])
    if state is State.CANCELLED:
        service.client(tenant).post(f"/v1/jobs/{job_id}:cancel")
    else:
        run_job(service.database, job_id, state, result="42" if state is State.SUCCEEDED else None)
    return job_id


def reads_upstream(service: Service) -> int:
    found = re.search(rf"^{re.escape(READ)} (\d+)", httpx2.get(f"{service.url}/metrics").text, re.MULTILINE)
    return int(found[1]) if found else 0


def read_many(edge: Service, path: str, key: str, count: int) -> int:
    """Send so many reads over one connection at once; gives how many were answered with the result."""
    request = f"GET {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {key}\r\n"
    last = request + "Connection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(edge.url).port or 0), timeout=60) as connection:
        connection.sendall((f"{request}\r\n" * (count - 1) + last).encode())
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    return len(re.findall(rb'"result":42\b', answers))


def test_ten_thousand_reads_of_one_result_are_one_read_upstream(service: Service, edge: Service) -> None:
    job_id = ended(service)
    key = add_key(service.database, "acme", EVERY_SCOPE)
    before = reads_upstream(service)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        counts = threads.map(
            lambda _: read_many(edge, f"/v1/jobs/{job_id}", key, READS // CONNECTIONS), range(CONNECTIONS)
        )
        assert sum(counts) == READS

    assert reads_upstream(service) - before == 1


def test_results_are_served_while_the_api_is_down(api_settings: Settings, server_folder: Path, tmp_path: Path) -> None:
    try:
        nginx = Nginx(server_folder / tmp_path.name, 1)
    except ServerMissing as missing:
        without_server(str(missing))
    database = api_settings.database_url.get_secret_value()
    key = add_key(database, "acme", EVERY_SCOPE)
    with serving(create_app(api_settings)) as url:
        service = Service(url=url, settings=api_settings, database=database)
        nginx = Nginx(server_folder / tmp_path.name, urlsplit(url).port or 0, nginx.port)
        nginx.start()
        client = httpx2.Client(base_url=f"http://127.0.0.1:{nginx.port}", headers={"Authorization": f"Bearer {key}"})
        job_id, live = ended(service), service.client().post("/v1/jobs", json=JOB).json()["id"]
        first = client.get(f"/v1/jobs/{job_id}")
        service.close()
    try:
        again, waited = (client.get(f"/v1/jobs/{job_id}", headers=headers) for headers in ({}, {"Prefer": "wait=5"}))
        known = client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": first.headers["etag"]})

        assert [answer.json() for answer in (again, waited)] == [first.json()] * 2
        assert known.status_code == 304
        assert client.get(f"/v1/jobs/{live}").status_code >= 500
    finally:
        client.close()
        nginx.stop()


def test_no_tenant_gets_what_is_kept_for_another(service: Service, edge: Service) -> None:
    job_id = ended(service)
    path = f"/v1/jobs/{job_id}"

    assert edge.client("acme").get(path).json()["result"] == 42
    assert edge.client("acme").get(path).headers["tp-cache"] == "HIT"

    assert edge.client("other").get(path).status_code == 404
    assert edge.client("acme", Scope.WRITE).get(path).json()["code"] == "not_allowed"
    assert edge.bare_client().get(path).json()["code"] == "not_authenticated"
    assert edge.bare_client(Authorization="Bearer tp_x_y").get(path).status_code == 401


@pytest.mark.parametrize(("state", "kept"), [(State.SUCCEEDED, True), (State.CANCELLED, True), (State.DEAD, False)])
def test_what_may_change_is_not_kept(service: Service, edge: Service, state: State, kept: bool) -> None:
    job_id = ended(service, state)
    client = edge.client()

    answers = [client.get(f"/v1/jobs/{job_id}") for _ in range(2)]

    assert [answer.json()["state"] for answer in answers] == [state] * 2
    assert (answers[1].headers["tp-cache"] == "HIT") is kept


def test_a_live_job_is_read_anew_and_waited_for(service: Service, edge: Service) -> None:
    client = edge.client()
    job_id = str(client.post("/v1/jobs", json=JOB).json()["id"])
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"

    with ThreadPoolExecutor(2) as threads:
        waits = [threads.submit(client.get, f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}) for _ in range(2)]
        run_job(service.database, job_id, State.SUCCEEDED, result="42")

        assert [wait.result(30).json()["result"] for wait in waits] == [42, 42]


def test_a_revoked_key_is_not_let_in_for_long(service: Service, edge: Service) -> None:
    path = f"/v1/jobs/{ended(service)}"
    client = edge.client()
    assert client.get(path).status_code == 200

    service.rows("UPDATE api_keys SET revoked_at = now() RETURNING 1")

    eventually(lambda: client.get(path).status_code == 401, within_seconds=40)
