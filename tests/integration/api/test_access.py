"""Who may do what: keys, scopes, and the wall between tenants."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from api.app import openapi
from api.document import PUBLIC
from taskplatform.access import AHEAD_SECONDS, CACHE_SECONDS, Keys
from taskplatform.auth import Scope, new_key
from taskplatform.job import State
from taskplatform.store.opening import opened
from taskplatform.store.postgres.store import PostgresStore
from tests.fixtures.proxy import NewProxy
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import EVERY_SCOPE, Service, run_job, with_store

NEEDED = {
    "submit_job": Scope.WRITE,
    "submit_batch": Scope.WRITE,
    "list_jobs": Scope.READ,
    "get_job": Scope.READ,
    "list_attempts": Scope.READ,
    "cancel_job": Scope.CANCEL,
    "list_dead_letters": Scope.READ,
    "get_dead_letter": Scope.READ,
    "replay_dead_letter": Scope.REPLAY,
    "get_key": Scope.READ,
    "list_tasks": Scope.READ,
    "get_overview": Scope.WATCH,
    "list_pools": Scope.WATCH,
    "get_pool": Scope.WATCH,
    "list_decisions": Scope.WATCH,
}
SOME_ID = "019aa0b1-0000-7000-8000-000000000000"


@pytest.fixture
def service(empty_service: Service) -> Service:
    """One service for all tests of this file."""
    return empty_service


def operations() -> list[tuple[str, str, str]]:
    """Every operation of the document: its id, method, and a path that fits."""
    found = []
    for path, methods in openapi()["paths"].items():
        for method, operation in methods.items():
            address = path.replace("{job_id}", SOME_ID).replace("{letter_id}", "1").replace("{pool}", "default")
            if path not in PUBLIC:
                found.append((operation["operationId"], method.upper(), address))
    return found


def test_every_operation_has_a_scope() -> None:
    assert {name for name, _, _ in operations()} == set(NEEDED)


def test_nothing_is_answered_without_a_key(service: Service) -> None:
    client = service.bare_client()

    answers = {name: client.request(method, path) for name, method, path in operations()}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(NEEDED, 401)
    assert {answer.headers["www-authenticate"] for answer in answers.values()} == {'Bearer realm="taskplatform"'}


@pytest.mark.parametrize("scope", [*EVERY_SCOPE, Scope.WATCH])
def test_a_key_may_do_what_its_scope_says_and_no_more(service: Service, scope: Scope) -> None:
    client = service.client("acme", scope)

    allowed = {name for name, method, path in operations() if client.request(method, path).status_code != 403}

    assert allowed == {name for name, needed in NEEDED.items() if needed is scope}


def test_an_administrator_may_do_everything(service: Service) -> None:
    client = service.client("acme", Scope.ADMIN)

    assert {client.request(method, path).status_code for _, method, path in operations()}.isdisjoint({401, 403})


def test_a_key_that_is_none_is_refused(service: Service) -> None:
    good = service.client().headers["authorization"]
    wrong_secret = new_key("acme", EVERY_SCOPE)[1].split("_")
    wrong_secret[1] = good.split("_")[1]
    headers = [
        "Bearer",
        "Bearer x",
        "Basic dXNlcjpwYXNz",
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        f"Bearer {'_'.join(wrong_secret)}",
        f"Bearer {new_key('acme', EVERY_SCOPE)[1]}",
        good.replace("Bearer", "Token"),
    ]

    answers = [service.bare_client(Authorization=header).get("/v1/tasks") for header in headers]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(401, "not_authenticated")}


def test_a_revoked_key_is_refused_within_seconds(service: Service) -> None:
    client = service.client()
    assert client.get("/v1/tasks").status_code == 200

    with_store(service.database, lambda store: store.revoke_key(client.headers["authorization"].split("_")[1]))

    revoked_at = time.monotonic()
    eventually(lambda: client.get("/v1/tasks").status_code == 401, within_seconds=20)
    assert time.monotonic() - revoked_at < 15


def test_nobody_who_uses_a_key_waits_for_a_store_that_stands_still(database: str, new_proxy: NewProxy) -> None:
    stored, text = new_key("acme", EVERY_SCOPE)
    with_store(database, lambda store: store.add_key(stored))
    port = urlsplit(database).port or 0
    proxy = new_proxy(port)
    now = 0.0

    async def use() -> None:
        nonlocal now
        store = PostgresStore(database.replace(f":{port}/", f":{proxy.port}/"))
        async with opened(store):
            keys = Keys(store, clock=lambda: now)
            sent = f"Bearer {text}".encode()
            await keys.admit(sent, Scope.READ)
            proxy.hang()
            now = CACHE_SECONDS - AHEAD_SECONDS
            await keys.admit(sent, Scope.READ)
            (looking,) = keys._looking.values()
            await asyncio.wait({looking})
            now = CACHE_SECONDS + 0.1

            with pytest.raises(StopIteration) as ended:
                keys.admit(sent, Scope.READ).send(None)

            assert ended.value.value.tenant == "acme"
            proxy.resume()

    asyncio.run(use())


def test_an_expired_key_is_refused(service: Service) -> None:
    stored, text = new_key("acme", EVERY_SCOPE, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with_store(service.database, lambda store: store.add_key(stored))

    assert service.bare_client(Authorization=f"Bearer {text}").get("/v1/tasks").status_code == 401


def test_another_tenants_job_is_not_found(service: Service) -> None:
    owner, stranger = service.client("acme"), service.client("other")
    job_id = owner.post("/v1/jobs", json={"task": "anything"}).json()["id"]
    run_job(service.database, job_id, State.DEAD, error="{}")
    letter_id = owner.get("/v1/dead-letters").json()["dead_letters"][0]["id"]

    def said(client: httpx2.Client) -> list[int]:
        paths = [
            ("GET", f"/v1/jobs/{job_id}"),
            ("GET", f"/v1/jobs/{job_id}/attempts"),
            ("POST", f"/v1/jobs/{job_id}:cancel"),
        ]
        letters = [("GET", f"/v1/dead-letters/{letter_id}"), ("POST", f"/v1/dead-letters/{letter_id}:replay")]
        return [client.request(method, path).status_code for method, path in paths + letters]

    assert said(stranger) == [404] * 5
    assert _seen(stranger, job_id) == ([], [], [])
    assert said(owner) == [200, 200, 200, 200, 202]


def test_health_needs_no_key(service: Service) -> None:
    client = service.bare_client()

    assert [client.get(path).json() for path in ("/livez", "/startupz")] == [{"status": "ok"}] * 2
    assert client.get("/readyz").json() == {"status": "ready", "store": "ok", "broker": "ok", "cache": "off"}
    assert {client.get(path).status_code for path in ("/metrics", "/openapi.json", "/docs")} == {200}


def test_every_answer_carries_security_headers(service: Service) -> None:
    client = service.client()

    answers = [client.get("/v1/tasks"), client.get("/nope"), client.post("/v1/jobs", json={"task": "anything"})]

    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}
    assert all("default-src 'none'" in answer.headers["content-security-policy"] for answer in answers)


def test_other_methods_are_refused_by_name(service: Service) -> None:
    client = service.client()

    answers = {path: client.delete(path) for path in ("/v1/jobs", "/v1/jobs:batch", f"/v1/jobs/{SOME_ID}", "/livez")}

    assert {path: (answer.status_code, answer.headers.get("allow")) for path, answer in answers.items()} == {
        "/v1/jobs": (405, "GET, POST"),
        "/v1/jobs:batch": (405, "POST"),
        f"/v1/jobs/{SOME_ID}": (405, "GET"),
        "/livez": (405, "GET"),
    }


def _seen(client: httpx2.Client, job_id: str) -> tuple[list[Any], list[Any], list[Any]]:
    return (
        client.get("/v1/jobs").json()["jobs"],
        client.get("/v1/jobs", params={"ids": job_id}).json()["jobs"],
        client.get("/v1/dead-letters").json()["dead_letters"],
    )
