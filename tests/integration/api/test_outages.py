"""What the service does while a part of the platform is away, and what a death in the middle leaves behind."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest

from api.app import create_app
from taskplatform.servers import free_ports
from taskplatform.settings import Settings, environment_of
from tests.fixtures.broker import drain
from tests.fixtures.proxy import NewProxy, Proxy
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Service, serving

JOB = {"task": "anything", "args": [1]}
SILENT_BROKER = """
import asyncio, sys
import uvicorn
from api.app import create_app
from taskplatform import settings, wiring

loaded = settings.load()
broker = wiring.new_broker(loaded)

async def never(messages):
    print("publishing", flush=True)
    await asyncio.Event().wait()

broker.publish = never
uvicorn.run(create_app(loaded, broker=broker), port=loaded.api_port, log_config=None)
"""


@pytest.fixture
def store_proxy(database: str, new_proxy: NewProxy) -> Proxy:
    """A way to Postgres that can be cut."""
    return new_proxy(urlsplit(database).port or 0)


@pytest.fixture
def broker_proxy(api_settings: Settings, new_proxy: NewProxy) -> Proxy:
    """A way to RabbitMQ that can be cut."""
    return new_proxy(urlsplit(api_settings.broker_url.get_secret_value()).port or 0)


@contextmanager
def running(loaded: Settings, database: str) -> Iterator[Service]:
    """Serve with these settings until the block ends."""
    with serving(create_app(loaded)) as url:
        service = Service(url=url, settings=loaded, database=database)
        try:
            eventually(lambda: httpx2.get(f"{url}/readyz").json()["status"] == "ready", within_seconds=20)
            yield service
        finally:
            service.close()


def through(url: str, proxy: Proxy) -> str:
    """Give the URL by way of the proxy."""
    return url.replace(f":{urlsplit(url).port}", f":{proxy.port}")


def store_away(api_settings: Settings, proxy: Proxy, **changes: object) -> Settings:
    dsn = through(api_settings.database_url.get_secret_value(), proxy)
    return api_settings.changed(database_url=type(api_settings.database_url)(dsn), **changes)


def broker_away(api_settings: Settings, proxy: Proxy) -> Settings:
    url = through(api_settings.broker_url.get_secret_value(), proxy)
    return api_settings.changed(broker_url=type(api_settings.broker_url)(url))


def test_jobs_are_accepted_shown_and_cancelled_while_the_broker_is_away(
    api_settings: Settings, database: str, broker_proxy: Proxy
) -> None:
    with running(broker_away(api_settings, broker_proxy), database) as service:
        client = service.client()
        broker_proxy.refuse()
        eventually(lambda: client.get("/readyz").json()["broker"] == "away", within_seconds=20)

        answer = client.post("/v1/jobs", json=JOB)

        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert client.get("/readyz").json() == {"status": "degraded", "store": "ok", "broker": "away", "cache": "off"}
        assert service.rows("SELECT job_ids[1]::text FROM outbox") == [(answer.json()["id"],)]
        place = f"/v1/jobs/{answer.json()['id']}"
        assert client.get(place).json()["state"] == "queued"
        assert client.post(f"{place}:cancel").json()["state"] == "cancelled"


def test_what_waits_for_the_confirms_of_others_is_published_once(
    api_settings: Settings, database: str, broker_proxy: Proxy
) -> None:
    with running(broker_away(api_settings, broker_proxy), database) as service:
        client = service.client()
        broker_proxy.hang()
        sent = [client.post("/v1/jobs", json=JOB).json()["id"] for _ in range(20)]
        broker_proxy.resume()
        eventually(lambda: service.rows("SELECT count(*) FROM outbox") == [(0,)], within_seconds=20)

    found = drain(api_settings.broker_url.get_secret_value(), "jobs.default.normal")
    assert [message.headers["id"] for message in found] == sent


def test_what_waits_for_confirms_that_never_come_stays_in_the_outbox(
    api_settings: Settings, database: str, broker_proxy: Proxy
) -> None:
    with running(broker_away(api_settings, broker_proxy), database) as service:
        client = service.client()
        broker_proxy.hang()
        sent = [client.post("/v1/jobs", json=JOB).json()["id"] for _ in range(5)]
        broker_proxy.refuse()
        eventually(lambda: client.get("/readyz").json()["broker"] == "away", within_seconds=20)
        broker_proxy.resume()
        eventually(lambda: client.get("/readyz").json()["broker"] == "ok", within_seconds=20)
        after = client.post("/v1/jobs", json=JOB).json()["id"]

    with psycopg.connect(database) as connection:
        kept = connection.execute("SELECT unnest(job_ids)::text FROM outbox ORDER BY id").fetchall()
    assert [job_id for (job_id,) in kept] == sent
    (message,) = drain(api_settings.broker_url.get_secret_value(), "jobs.default.normal")
    assert message.headers["id"] == after


def test_a_stop_before_a_frozen_broker_leaves_what_waits_in_the_outbox(
    api_settings: Settings, database: str, broker_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskplatform.gathering.GATHER_SECONDS", 3600.0)
    with running(broker_away(api_settings, broker_proxy), database) as service:
        broker_proxy.hang()
        sent = {service.client().post("/v1/jobs", json=JOB).json()["id"] for _ in range(3)}

    with psycopg.connect(database) as connection:
        kept = connection.execute("SELECT unnest(job_ids)::text FROM outbox").fetchall()
    assert {job_id for (job_id,) in kept} == sent


def test_the_store_being_away_is_said_and_passes(api_settings: Settings, database: str, store_proxy: Proxy) -> None:
    with running(store_away(api_settings, store_proxy), database) as service:
        client = service.client()
        assert client.post("/v1/jobs", json=JOB).status_code == 202
        store_proxy.refuse()
        away = client.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "away"})
        eventually(lambda: client.get("/readyz").json()["store"] == "away", within_seconds=20)
        ready = client.get("/readyz")
        store_proxy.resume()
        eventually(lambda: client.post("/v1/jobs", json=JOB).status_code == 202, within_seconds=20)

        assert (away.status_code, away.json()["code"], away.json()["retryable"]) == (503, "store_unavailable", True)
        assert away.headers["retry-after"] == "2"
        assert ready.json() == {"status": "degraded", "store": "away", "broker": "ok", "cache": "off"}


def test_a_cut_answer_is_unknown_and_the_same_key_makes_one_job(
    api_settings: Settings, database: str, store_proxy: Proxy
) -> None:
    with running(store_away(api_settings, store_proxy), database) as service:
        client = service.client()
        said: Counter[tuple[int, str]] = Counter()

        for count in range(20, 1200, 59):
            key = {"Idempotency-Key": f"cut-{count}"}
            store_proxy.cut_after(count)
            answer = client.post("/v1/jobs", json=JOB, headers=key)
            said[answer.status_code, answer.json().get("code", "")] += 1
            _submit_until_accepted(client, key)

        assert set(said) <= {(202, ""), (503, "outcome_unknown"), (503, "store_unavailable")}
        assert said[503, "outcome_unknown"] > 0
        assert service.stored() == said.total()


def test_too_many_waiting_submissions_are_turned_away(
    api_settings: Settings, database: str, store_proxy: Proxy
) -> None:
    with running(store_away(api_settings, store_proxy, commit_batch_jobs=1), database) as service:
        client = service.client()
        client.post("/v1/jobs", json=JOB)
        store_proxy.hang()
        with ThreadPoolExecutor(60) as threads:
            keys = [{"Idempotency-Key": f"waiting-{number}"} for number in range(60)]
            answers = [threads.submit(client.post, "/v1/jobs", json=JOB, headers=key) for key in keys]
            turned_away = eventually(lambda: [one for one in answers if one.done()], within_seconds=20)
            store_proxy.resume()

        said = Counter(answer.result(30).status_code for answer in answers)
        assert turned_away[0].result().json()["code"] == "overloaded"
        assert set(said) == {202, 503}
        assert service.stored() == said[202] + 1


def test_what_arrives_during_a_commit_shares_the_next(
    api_settings: Settings, database: str, store_proxy: Proxy
) -> None:
    with running(store_away(api_settings, store_proxy), database) as service:
        client = service.client()
        client.post("/v1/jobs", json=JOB)
        open_before = _metric(client, "process_open_fds")
        store_proxy.hang()
        with ThreadPoolExecutor(50) as threads:
            answers = [threads.submit(client.post, "/v1/jobs", json=JOB) for _ in range(50)]
            # Client and service are one process here: every waiting request holds two sockets.
            eventually(lambda: _metric(client, "process_open_fds") >= open_before + 100, within_seconds=20)
            store_proxy.resume()

        assert {answer.result(30).status_code for answer in answers} == {202}
        commits = _metric(client, "tp_intake_batch_size_count")
        assert commits < _metric(client, "tp_intake_batch_size_sum") / 2


def test_a_stop_does_not_wait_for_those_who_wait(api_settings: Settings, database: str) -> None:
    port = free_ports(1)[0]
    environment = {**os.environ, **environment_of(api_settings), "TASKPLATFORM_API_PORT": str(port)}
    with subprocess.Popen([sys.executable, "-m", "api"], env=environment, stderr=subprocess.DEVNULL) as process:
        service = Service(url=f"http://127.0.0.1:{port}", settings=api_settings, database=database)
        with ThreadPoolExecutor(1) as thread:
            eventually(lambda: _is_ready(service.url), within_seconds=30)
            waiting = thread.submit(service.client().post, "/v1/jobs", json=JOB, headers={"Prefer": "wait=30"})
            eventually(lambda: service.stored() == 1)
            process.send_signal(signal.SIGTERM)
            status = process.wait(15)
            answer = waiting.result(5)
        service.close()

    assert (status in (0, -signal.SIGTERM), answer.status_code) == (True, 202)


def test_several_processes_share_the_port(api_settings: Settings, database: str) -> None:
    port = free_ports(1)[0]
    own = {"TASKPLATFORM_API_PORT": str(port), "TASKPLATFORM_API_PROCESSES": "2"}
    environment = {**os.environ, **environment_of(api_settings), **own}
    with subprocess.Popen([sys.executable, "-m", "api"], env=environment, stderr=subprocess.DEVNULL) as process:
        service = Service(url=f"http://127.0.0.1:{port}", settings=api_settings, database=database)
        try:
            eventually(lambda: _is_ready(service.url), within_seconds=30)
            answer = service.client().post("/v1/jobs:batch", json=[JOB] * 100)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(30)
            service.close()

    assert (status, answer.status_code, service.stored()) == (0, 202, 100)


def test_a_full_queue_keeps_the_rest_in_the_store(api_settings: Settings, database: str) -> None:
    with running(api_settings.changed(queue_limit_messages=3), database) as service:
        said = service.client().post("/v1/jobs:batch", json=[JOB] * 5).json()

        assert Counter(item["state"] for item in said["items"]) == {"queued": 3, "blocked": 2}
        assert service.rows("SELECT DISTINCT blocked_on FROM jobs WHERE state = 'blocked'") == [("queue_full",)]


def test_a_stop_publishes_and_settles_what_was_taken(api_settings: Settings, database: str) -> None:
    with running(api_settings, database) as service:
        answer = service.client().post("/v1/jobs:batch", json=[JOB] * 500)

    assert answer.status_code == 202
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def test_a_death_between_commit_and_publish_leaves_the_job_in_the_outbox(api_settings: Settings, database: str) -> None:
    port = free_ports(1)[0]
    loaded = api_settings.changed(api_port=port)
    environment = {**os.environ, **environment_of(loaded), "TASKPLATFORM_API_PORT": str(port)}
    with subprocess.Popen([sys.executable, "-c", SILENT_BROKER], env=environment, stdout=subprocess.PIPE) as process:
        service = Service(url=f"http://127.0.0.1:{port}", settings=loaded, database=database)
        try:
            eventually(lambda: _is_ready(service.url), within_seconds=30)
            job_id = service.client().post("/v1/jobs", json=JOB).json()["id"]
            assert process.stdout is not None
            assert process.stdout.readline() == b"publishing\n"
        finally:
            process.send_signal(signal.SIGKILL)
            service.close()

    assert service.rows("SELECT id::text, state FROM jobs") == [(job_id, "queued")]
    assert service.rows("SELECT job_ids[1]::text FROM outbox") == [(job_id,)]


def _metric(client: httpx2.Client, name: str) -> float:
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def _submit_until_accepted(client: httpx2.Client, headers: dict[str, str]) -> None:
    eventually(lambda: client.post("/v1/jobs", json=JOB, headers=headers).status_code == 202, within_seconds=20)


def _is_ready(url: str) -> bool:
    try:
        return bool(httpx2.get(f"{url}/readyz").json()["status"] == "ready")
    except httpx2.TransportError:
        return False
