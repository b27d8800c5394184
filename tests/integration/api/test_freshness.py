"""The token that says how far a caller has seen, over HTTP and in the SDK, on a replica that is behind."""

import asyncio
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from api.app import create_app
from taskplatform import freshness
from taskplatform.client import AsyncClient, Client
from taskplatform.job import State
from taskplatform.settings import Settings
from tests.fixtures.replica import Standby
from tests.integration.api.conftest import EVERY_SCOPE, Service, add_key, run_job, serving, start_job

JOB = {"task": "anything", "args": [1]}
OLD = "0=1-1"


@pytest.fixture
def replicated(api_settings: Settings, database: str, standby: Standby) -> Iterator[Service]:
    """A service that reads from the standby."""
    standby.catch_up()
    loaded = api_settings.changed(database_replica_urls=SecretStr(f"{standby.dsn(database)};"))
    with serving(create_app(loaded)) as url:
        service = Service(url=url, settings=loaded, database=database)
        yield service
        service.close()


def test_a_caller_who_hands_back_its_token_sees_what_it_wrote(replicated: Service, standby: Standby) -> None:
    client = replicated.client()
    with standby.held_up():
        accepted = client.post("/v1/jobs", json=JOB)
        job_id, seen = accepted.json()["id"], {"Tp-Seen": accepted.headers["tp-seen"]}
        start_job(replicated.database, job_id)

        first = client.get(f"/v1/jobs/{job_id}", headers=seen)
        listed = client.get("/v1/jobs", headers=seen)
        named = client.get("/v1/jobs", params={"ids": job_id}, headers=seen)

    assert first.json()["state"] == "running"
    assert [job["id"] for job in listed.json()["jobs"]] == [job_id]
    assert [job["id"] for job in named.json()["jobs"]] == [job_id]


def test_a_live_job_is_read_from_the_replica_by_who_has_not_seen_more(replicated: Service, standby: Standby) -> None:
    client = replicated.client()
    job_id = client.post("/v1/jobs", json=JOB).json()["id"]
    standby.catch_up()
    with standby.held_up():
        start_job(replicated.database, job_id)

        old = client.get(f"/v1/jobs/{job_id}", headers={"Tp-Seen": OLD})
        whatever = client.get(f"/v1/jobs/{job_id}")

    assert (old.json()["state"], whatever.json()["state"]) == ("queued", "running")


def test_an_answer_never_carries_less_than_the_caller_has_seen(replicated: Service) -> None:
    client = replicated.client()
    ahead = "0=7-FFFFFFFFFFFF,3=1-A"

    answer = client.get("/v1/jobs", headers={"Tp-Seen": ahead})

    assert answer.status_code == 200
    assert freshness.read(answer.headers["tp-seen"]) == freshness.read(ahead)


def test_who_has_seen_a_result_is_shown_no_list_from_before_it(replicated: Service, standby: Standby) -> None:
    client = replicated.client()
    with standby.held_up():
        accepted = client.post("/v1/jobs", json=JOB)
        job_id = accepted.json()["id"]
        run_job(replicated.database, job_id, State.SUCCEEDED, result="42")

        result = client.get(f"/v1/jobs/{job_id}", headers={"Tp-Seen": accepted.headers["tp-seen"]})
        listed = client.get("/v1/jobs", headers={"Tp-Seen": result.headers["tp-seen"]})

    assert "immutable" in result.headers["cache-control"]
    assert [job["state"] for job in listed.json()["jobs"]] == ["succeeded"]


@pytest.mark.parametrize("token", ["x", "0=1", "0=1-A;1=1-B", "-1=1-A"])
def test_a_token_that_is_none_is_refused(replicated: Service, token: str) -> None:
    answer = replicated.client().get("/v1/jobs", headers={"Tp-Seen": token})

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_http")


def test_the_clients_hand_back_what_they_have_seen(replicated: Service, standby: Standby) -> None:
    key = add_key(replicated.database, "acme", EVERY_SCOPE)
    standby.catch_up()
    with Client(replicated.url, key=key) as client:
        handle = client.submit("anything", 1)
        with standby.held_up():
            start_job(replicated.database, str(handle.id))
            client.submit("anything", 2)

            assert handle.status().state == "running"
            assert len(list(client.jobs())) == 2


def test_the_asynchronous_client_does_too(replicated: Service, standby: Standby) -> None:
    key = add_key(replicated.database, "acme", EVERY_SCOPE)

    async def submit_twice_and_list() -> int:
        async with AsyncClient(replicated.url, key=key) as client:
            for number in (1, 2):
                await client.submit("anything", number)
            return len([job async for job in client.jobs()])

    with standby.held_up():
        assert asyncio.run(submit_twice_and_list()) == 2


def test_without_replicas_there_is_no_token(service: Service) -> None:
    assert "tp-seen" not in service.client().post("/v1/jobs", json=JOB).headers
