"""Reads through the cache over HTTP: without it only the time changes, and what has ended needs no store."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest
from pydantic import SecretStr

from taskplatform.job import State
from taskplatform.servers import Redis
from taskplatform.settings import Settings
from tests.fixtures.cache import PATIENT_SECONDS
from tests.fixtures.proxy import NewProxy, Proxy
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Service, run_job
from tests.integration.api.test_outages import running, store_away

JOB = {"task": "anything", "args": [1]}
# A server that was gone is looked for at growing intervals.
FOUND_SECONDS = 60


@pytest.fixture
def store_proxy(database: str, new_proxy: NewProxy) -> Proxy:
    """A way to Postgres that can be cut."""
    return new_proxy(urlsplit(database).port or 0)


@pytest.fixture
def service(api_settings: Settings, database: str, store_proxy: Proxy, cache_server: Redis) -> Iterator[Service]:
    """A service with a cache that reaches the store by way of the proxy."""
    cache = {"cache_url": SecretStr(cache_server.url()), "cache_answer_seconds": PATIENT_SECONDS}
    with running(store_away(api_settings, store_proxy, **cache), database) as service:
        client = service.bare_client()
        eventually(lambda: client.get("/readyz").json()["cache"] == "ok", within_seconds=30)
        yield service


def ended(service: Service, client: httpx2.Client, result: str = "42") -> str:
    job_id = str(client.post("/v1/jobs", json=JOB).json()["id"])
    run_job(service.database, job_id, State.SUCCEEDED, result=result)
    return job_id


def reads(client: httpx2.Client, outcome: str) -> float:
    name = f'tp_cache_reads_total{{outcome="{outcome}"}} '
    return sum(float(line.split()[1]) for line in client.get("/metrics").text.splitlines() if line.startswith(name))


def test_an_ended_job_is_read_from_the_store_once(service: Service) -> None:
    client = service.client()
    job_id = ended(service, client)

    answers = [client.get(f"/v1/jobs/{job_id}") for _ in range(20)]

    assert {(answer.status_code, answer.json()["result"]) for answer in answers} == {(200, 42)}
    assert len({answer.headers["etag"] for answer in answers}) == 1
    assert (reads(client, "miss"), reads(client, "hit")) == (1, 19)


def test_no_tenant_is_shown_what_is_kept_for_another(service: Service) -> None:
    owner, other = service.client("acme"), service.client("other")
    job_id = ended(service, owner)
    assert owner.get(f"/v1/jobs/{job_id}").json()["result"] == 42

    assert other.get(f"/v1/jobs/{job_id}").status_code == 404
    assert other.get("/v1/jobs", params={"ids": job_id}).json()["jobs"] == []
    assert owner.get("/v1/jobs", params={"ids": job_id}).json()["jobs"][0]["result"] == 42


def test_what_has_ended_is_shown_while_the_store_is_away(service: Service, store_proxy: Proxy) -> None:
    client = service.client()
    kept, not_kept = ended(service, client), ended(service, client)
    assert client.get(f"/v1/jobs/{kept}").status_code == 200

    store_proxy.refuse()

    assert client.get(f"/v1/jobs/{kept}").json()["result"] == 42
    assert client.get(f"/v1/jobs/{not_kept}").status_code == 503


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_without_the_cache_the_answers_are_the_same(
    api_settings: Settings, database: str, cache_server: Redis, harm: str
) -> None:
    loaded = api_settings.changed(cache_url=SecretStr(cache_server.url()))
    with running(loaded, database) as service:
        client = service.client()
        kept = ended(service, client)
        eventually(lambda: _is_hit(client, kept), within_seconds=FOUND_SECONDS)

        (cache_server.kill if harm == "kill" else cache_server.process.freeze)()
        answers = [client.get(f"/v1/jobs/{job_id}") for job_id in (kept, ended(service, client)) for _ in range(20)]
        ready, page = client.get("/readyz"), client.get("/metrics").text
        (cache_server.start if harm == "kill" else cache_server.process.thaw)()

        assert {(answer.status_code, answer.json()["result"]) for answer in answers} == {(200, 42)}
        assert ready.json() == {"status": "ready", "store": "ok", "broker": "ok", "cache": "away"}
        assert 'tp_mode{component="cache"} 1.0' in page
        eventually(lambda: _is_hit(client, kept), within_seconds=FOUND_SECONDS)
        assert client.get("/readyz").json()["cache"] == "ok"


def _is_hit(client: httpx2.Client, job_id: str) -> bool:
    before = reads(client, "hit")
    client.get(f"/v1/jobs/{job_id}")
    return reads(client, "hit") > before
