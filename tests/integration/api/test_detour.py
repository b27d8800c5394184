"""While the store is away, jobs whose message says everything are taken by the broker, and nothing else is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
import pytest

from taskplatform.payload import admit
from taskplatform.settings import Settings
from tests.fixtures.broker import drain
from tests.fixtures.celery import Bench
from tests.fixtures.ghost import Ghost
from tests.fixtures.proxy import NewProxy, Proxy
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import SECRET, Service, with_store
from tests.integration.api.test_outages import running, store_away
from tests.integration.workers.jobs import note

JOB = {"task": "anything", "args": [1]}
KEY = {"Idempotency-Key": "known"}


@pytest.fixture
def store_proxy(database: str, new_proxy: NewProxy) -> Proxy:
    """A way to Postgres that can be cut."""
    return new_proxy(urlsplit(database).port or 0)


@pytest.fixture
def service(api_settings: Settings, database: str, store_proxy: Proxy) -> Iterator[Service]:
    """A service that reaches the store by way of the proxy."""
    with_store(database, lambda store: store.announce([note.spec]))
    with running(store_away(api_settings, store_proxy), database) as service:
        yield service


def known_client(service: Service) -> httpx2.Client:
    """Give a client whose key the service has seen."""
    client = service.client()
    assert client.get("/v1/jobs").status_code == 200
    return client


def messages(service: Service) -> list[Any]:
    """Take every message out of the queue."""
    return drain(service.settings.broker_url.get_secret_value(), "jobs.default.normal")


@pytest.mark.parametrize("fault", ["refuse", "hang"])
def test_a_plain_job_is_in_the_broker_when_it_is_accepted(service: Service, store_proxy: Proxy, fault: str) -> None:
    client = known_client(service)

    getattr(store_proxy, fault)()
    answers = [client.post("/v1/jobs", json=JOB) for _ in range(3)]
    taken = messages(service)

    assert [(answer.status_code, answer.headers.get("tp-mode")) for answer in answers] == [(202, "store-away")] * 3
    envelopes = [
        admit(one.headers, one.body.encode(), one.properties, [SECRET.encode()], allow_unsigned=False) for one in taken
    ]
    assert {str(envelope.id) for envelope in envelopes} == {answer.json()["id"] for answer in answers}
    assert {envelope.series for envelope in envelopes} == {None}


@pytest.mark.parametrize(
    ("change", "headers"),
    [
        ({}, KEY),
        ({"delay_seconds": 60}, {}),
        ({"tags": ["red"]}, {}),
        ({"max_attempts": 2}, {}),
    ],
    ids=["key", "time", "tag", "attempts"],
)
def test_what_a_message_cannot_say_is_refused(
    service: Service, store_proxy: Proxy, change: dict[str, Any], headers: dict[str, str]
) -> None:
    client = known_client(service)

    store_proxy.refuse()
    answer = client.post("/v1/jobs", json={**JOB, **change}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "2"
    assert messages(service) == []


def test_only_the_first_with_a_key_waits_for_a_store_that_stands_still(service: Service, store_proxy: Proxy) -> None:
    client = known_client(service)

    store_proxy.hang()
    answers = [client.post("/v1/jobs", json=JOB, headers=KEY) for _ in range(3)]
    store_proxy.resume()
    eventually(lambda: "tp-mode" not in client.get("/readyz").headers, within_seconds=30)
    again = client.post("/v1/jobs", json=JOB, headers=KEY)

    assert [answer.status_code for answer in answers] == [503] * 3
    assert [answer.json()["code"] for answer in answers] == ["outcome_unknown", *["store_unavailable"] * 2]
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert [answer.headers.get("tp-mode") for answer in answers] == ["store-away"] * 3
    assert (again.status_code, service.stored()) == (202, 1)


def test_the_mode_ends_by_itself_and_says_so(service: Service, store_proxy: Proxy) -> None:
    client = known_client(service)

    store_proxy.refuse()
    client.post("/v1/jobs", json=JOB)
    during = client.get("/readyz"), client.get("/metrics").text
    store_proxy.resume()
    eventually(lambda: "tp-mode" not in client.get("/readyz").headers, within_seconds=20)
    after = client.post("/v1/jobs", json=JOB, headers=KEY)

    assert (during[0].status_code, during[0].headers["tp-mode"]) == (200, "store-away")
    assert 'tp_mode{component="writes"} 1.0' in during[1]
    assert after.status_code == 202
    assert 'tp_mode{component="writes"} 0.0' in client.get("/metrics").text


def test_a_job_that_a_slow_store_takes_after_all_is_one_job(service: Service, store_proxy: Proxy) -> None:
    client = known_client(service)
    client.post("/v1/jobs", json=JOB, headers=KEY)

    store_proxy.hang()
    answer = client.post("/v1/jobs", json=JOB)
    store_proxy.resume()
    eventually(lambda: service.stored() == 2, within_seconds=20)

    assert answer.json()["id"] in {row[0] for row in service.rows("SELECT id::text FROM jobs")}


@pytest.mark.parametrize("store_is_late", [False, True])
def test_a_job_in_both_the_broker_and_the_store_runs_once(
    service: Service, store_proxy: Proxy, amqp_bench: Bench, tmp_path: Path, store_is_late: bool
) -> None:
    notes = tmp_path / "notes"
    keys = service.settings.signing_keys
    client = known_client(service)
    store_proxy.hang()
    answer = client.post("/v1/jobs", json={"task": "note", "args": [str(notes), "ran", 0]})
    job_id = UUID(answer.json()["id"])
    if store_is_late:
        amqp_bench.worker(signing_keys=keys)
        eventually(lambda: amqp_bench.whereabouts() == {"succeeded": 1}, within_seconds=30)

    store_proxy.resume()
    eventually(lambda: "tp-mode" not in client.get("/readyz").headers, within_seconds=30)
    if not store_is_late:
        # That of the detour, and that of the intake once the commit was through.
        eventually(lambda: amqp_bench.depth("jobs.default.normal") == 2, within_seconds=30)
        amqp_bench.worker(signing_keys=keys)
    last = client.post("/v1/jobs", json={"task": "note", "args": [str(notes), "ran last", 0]}, headers=KEY).json()["id"]
    amqp_bench.ended(UUID(last), within_seconds=30)

    eventually(lambda: amqp_bench.depth("jobs.default.normal") == 0, within_seconds=30)
    assert answer.headers["tp-mode"] == "store-away"
    # Two processes: either may be the first.
    assert sorted(notes.read_text().splitlines()) == ["ran", "ran last"]
    assert amqp_bench.whereabouts() == {"succeeded": 2}
    assert amqp_bench.attempts(job_id) == [(1, "succeeded")]


def test_commits_that_wait_for_standbys_keep_the_mode_and_leave_no_sessions(service: Service, ghost: Ghost) -> None:
    client = known_client(service)
    ghost.want()

    answer = client.post("/v1/jobs", json=JOB)
    first = proving(service, besides=0)
    second = proving(service, besides=first)
    during = client.get("/readyz")
    sessions = service.rows("SELECT pid FROM pg_stat_activity WHERE pid = %s", first)
    ghost.do_without()
    eventually(lambda: "tp-mode" not in client.get("/readyz").headers, within_seconds=30)

    assert (answer.status_code, answer.headers["tp-mode"]) == (202, "store-away")
    assert during.headers["tp-mode"] == "store-away"
    assert (second != first, sessions) == (True, [])
    assert client.post("/v1/jobs", json=JOB, headers=KEY).status_code == 202


def proving(service: Service, besides: int) -> int:
    """Wait until the API tries a commit in a session that is not the given one; gives its process."""
    query = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ 'emit_message' AND pid <> %s"
    return int(eventually(lambda: service.rows(query, besides), within_seconds=30)[0][0])


def test_a_stranger_is_not_let_in_while_the_store_is_away(service: Service, store_proxy: Proxy) -> None:
    known, stranger = known_client(service), service.client()

    store_proxy.refuse()

    assert known.post("/v1/jobs", json=JOB).status_code == 202
    assert stranger.post("/v1/jobs", json=JOB).status_code == 503
