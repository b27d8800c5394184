"""One job handed in: what is stored, what is published, and what the answer says."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx2

from taskplatform.job import State
from taskplatform.task import TaskSpec
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Service, run_job, with_store

JOB = {"task": "photos.thumbnail", "args": ["a.jpg", 64]}


def test_an_accepted_job_is_stored_and_shown(service: Service) -> None:
    client = service.client()

    answer = client.post("/v1/jobs", json=JOB)

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    assert answer.headers["retry-after"] == "1"
    shown = client.get(answer.headers["location"]).json()
    assert shown == answer.json()
    assert (shown["state"], shown["args"], shown["kwargs"], shown["done"]) == ("queued", ["a.jpg", 64], {}, False)


def test_a_task_is_taken_from_the_moment_it_is_announced(service: Service, database: str) -> None:
    client = service.client()
    before = client.post("/v1/jobs", json={"task": "photos.new"})
    with_store(database, lambda store: store.announce([TaskSpec(name="photos.new")]))

    after = client.post("/v1/jobs", json={"task": "photos.new"})

    assert (before.status_code, after.status_code) == (422, 202)


def test_a_published_job_leaves_the_outbox(service: Service) -> None:
    service.client().post("/v1/jobs", json=JOB)

    assert eventually(lambda: service.rows("SELECT count(*) FROM outbox") == [(0,)])


def test_arguments_are_stored_as_they_were_sent(service: Service) -> None:
    text = b'{"task":"anything","args":[1.10, 1e3,-0.0,"\xc3\xa9\\u00e9"],"kwargs":{"b":1,"a":[ ]}}'

    answer = service.client().post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})

    assert b'"args":[1.10, 1e3,-0.0,"\xc3\xa9\\u00e9"],"kwargs":{"b":1,"a":[ ]}' in answer.content
    assert service.rows("SELECT body FROM jobs")[0][0].startswith('[[1.10, 1e3,-0.0,"é\\u00e9"],{"b":1,"a":[ ]},')


def test_a_delayed_job_is_scheduled_and_not_published(service: Service) -> None:
    answer = service.client().post("/v1/jobs", json={**JOB, "delay_seconds": 3600})

    assert answer.json()["state"] == "scheduled"
    assert answer.headers["retry-after"] == "60"
    due = datetime.fromisoformat(answer.json()["due_at"])
    assert timedelta(minutes=59) < due - datetime.now(UTC) <= timedelta(hours=1)
    assert service.rows("SELECT count(*) FROM outbox") == [(0,)]


def test_options_of_a_submission_override_the_task(service: Service) -> None:
    options = {"pool": "bulk", "priority": "high", "max_attempts": 2, "tags": ["a", "b"], "deadline_seconds": 60}

    shown = service.client().post("/v1/jobs", json={**JOB, **options}).json()

    assert {name: shown[name] for name in ("pool", "priority", "max_attempts", "tags")} == {
        name: options[name] for name in ("pool", "priority", "max_attempts", "tags")
    }
    assert shown["expires_at"] is not None


def test_the_same_key_and_body_name_the_same_job(service: Service) -> None:
    client = service.client()
    first = client.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "k"})

    second = client.post("/v1/jobs", json=dict(reversed(JOB.items())), headers={"Idempotency-Key": "k"})

    assert second.status_code == 202
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert service.stored() == 1


def test_the_same_key_with_another_body_is_refused(service: Service) -> None:
    client = service.client()
    client.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "k"})

    answer = client.post("/v1/jobs", json={**JOB, "args": ["b.jpg"]}, headers={"Idempotency-Key": "k"})

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert service.stored() == 1


def test_a_key_belongs_to_its_tenant(service: Service) -> None:
    first = service.client("acme").post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "k"})

    second = service.client("other").post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "k"})

    assert second.json()["id"] != first.json()["id"]


def test_two_hundred_submissions_of_one_key_make_one_job(service: Service) -> None:
    client = service.client()
    together = threading.Barrier(50)

    def submit(number: int) -> httpx2.Response:
        if number < 50:
            together.wait(20)
        return client.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(submit, range(200)))

    assert Counter(answer.status_code for answer in answers) == {202: 200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert service.stored() == 1


def test_waiting_gives_the_ended_job(service: Service) -> None:
    client = service.client()

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.post, "/v1/jobs", json=JOB, headers={"Prefer": "respond-async, wait=20"})
        (job_id,) = eventually(lambda: service.rows("SELECT id::text FROM jobs WHERE state = 'queued'"))[0]
        run_job(service.database, job_id, State.SUCCEEDED, result='{"n": 1.50}')
        answer = waiting.result(20)

    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert (answer.json()["state"], answer.json()["result"]) == ("succeeded", {"n": 1.5})
    assert b'"result":{"n": 1.50}' in answer.content


def test_waiting_in_vain_gives_the_accepted_job(service: Service) -> None:
    answer = service.client().post("/v1/jobs", json=JOB, headers={"Prefer": "wait=1"})

    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.headers["preference-applied"] == "wait=1"


def test_a_traceparent_travels_with_the_job(service: Service) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    service.client().post("/v1/jobs", json=JOB, headers={"traceparent": trace})

    assert service.rows("SELECT trace FROM jobs") == [(trace,)]


def test_a_task_that_is_announced_later_is_known_soon(service: Service) -> None:
    client = service.client()
    assert client.post("/v1/jobs", json={"task": "later"}).status_code == 422

    with_store(service.database, lambda store: store.announce([TaskSpec(name="later")]))

    assert eventually(lambda: client.post("/v1/jobs", json={"task": "later"}).status_code == 202, within_seconds=30)


def test_a_job_is_checked_against_the_newest_version_that_a_worker_runs_and_keeps_it(service: Service) -> None:
    old = TaskSpec(name="shop.pay", positional=("order",))
    new = TaskSpec(name="shop.pay", version=2, positional=("order", "currency"))
    with_store(service.database, lambda store: store.announce([old]))
    client = service.client()
    both = {"task": "shop.pay", "args": [1, "SEK"]}
    assert client.post("/v1/jobs", json=both).status_code == 422
    first = client.post("/v1/jobs", json={"task": "shop.pay", "args": [1]})
    assert (first.status_code, first.json()["task_version"]) == (202, 1)

    service.rows(
        "INSERT INTO workers (id, pool, host, pid, processes, lease_until, versions)"
        " VALUES ('w', 'default', 'here', 1, 1, now() + interval '1 hour', %s) RETURNING id",
        '{"shop.pay": 2}',
    )
    with_store(service.database, lambda store: store.announce([new]))
    with_store(service.database, lambda store: store.announce([old]))

    (shown,) = [task for task in client.get("/v1/tasks").json()["tasks"] if task["name"] == "shop.pay"]
    assert (shown["version"], shown["live_versions"], shown["positional"]) == (2, [2], ["order", "currency"])
    second = client.post("/v1/jobs", json=both)
    assert (second.status_code, second.json()["task_version"]) == (202, 2)
    assert client.get(f"/v1/jobs/{second.json()['id']}").json()["task_version"] == 2
