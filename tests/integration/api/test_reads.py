"""Reads of jobs: caching, waiting, lists and their pages, attempts, and the cancel."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from taskplatform.job import State
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Service, run_job, start_job

JOB = {"task": "photos.thumbnail", "args": ["a.jpg"]}
ERROR = '{"type": "ValueError", "message": "no"}'


def submit(client: httpx2.Client, **options: Any) -> str:
    return str(client.post("/v1/jobs", json={**JOB, **options}).json()["id"])


def test_an_ended_job_may_be_kept_for_ever(service: Service) -> None:
    client = service.client()
    job_id = submit(client)
    run_job(service.database, job_id, State.SUCCEEDED, result="42")

    answer = client.get(f"/v1/jobs/{job_id}")

    assert re.fullmatch(r"private, max-age=25\d{5}, immutable", answer.headers["cache-control"])
    assert not answer.headers["etag"].startswith("W/")
    assert (answer.json()["done"], answer.json()["result"]) == (True, 42)
    assert "error" not in answer.json()


def test_a_dead_job_is_asked_for_again(service: Service) -> None:
    client = service.client()
    job_id = submit(client)
    run_job(service.database, job_id, State.DEAD, error=ERROR)

    answer = client.get(f"/v1/jobs/{job_id}")

    assert answer.headers["cache-control"] == "private, no-cache"
    assert (answer.json()["state"], answer.json()["error"]["type"]) == ("dead", "ValueError")
    assert answer.json()["reason"] == "attempts_exhausted"


def test_a_live_job_is_not_kept(service: Service) -> None:
    client = service.client()

    answer = client.get(f"/v1/jobs/{submit(client)}")

    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["retry-after"] == "1"


def test_an_unchanged_job_is_answered_with_304(service: Service) -> None:
    client = service.client()
    job_id = submit(client)
    etag = client.get(f"/v1/jobs/{job_id}").headers["etag"]

    same = client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": f'"x", {etag}'})
    start_job(service.database, job_id)
    changed = client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})

    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert (changed.status_code, changed.json()["state"]) == (200, "running")


def test_a_read_may_wait_for_the_end(service: Service) -> None:
    client = service.client()
    job_id = submit(client)

    with ThreadPoolExecutor(20) as threads:
        waits = [threads.submit(client.get, f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}) for _ in range(20)]
        run_job(service.database, job_id, State.SUCCEEDED, result="1")
        answers = [wait.result(25) for wait in waits]

    assert {answer.json()["state"] for answer in answers} == {"succeeded"}
    assert {answer.headers["preference-applied"] for answer in answers} == {"wait=20"}


def test_an_unknown_id_is_not_found(service: Service) -> None:
    client = service.client()
    ids = ["019aa0b1-0000-7000-8000-000000000000", "1", "..%2f..%2fetc", "' OR 1=1", "%00"]

    answers = {client.get(f"/v1/jobs/{job_id}").status_code for job_id in ids}

    assert answers == {404}


def test_a_list_is_read_page_by_page(service: Service) -> None:
    client = service.client()
    ids = [submit(client) for _ in range(5)]

    first = client.get("/v1/jobs", params={"page_size": "2"})
    second = client.get(first.links["next"]["url"])
    third = client.get("/v1/jobs", params={"page_size": "2", "page_token": second.json()["next_page_token"]})

    found = [job["id"] for page in (first, second, third) for job in page.json()["jobs"]]
    assert found == ids[::-1]
    assert (third.json()["next_page_token"], "link" in third.headers) == ("", False)


def test_a_list_is_narrowed_by_its_filters(service: Service) -> None:
    client = service.client()
    plain, tagged, bulk = submit(client), submit(client, tags=["night"]), submit(client, pool="bulk")
    run_job(service.database, plain, State.SUCCEEDED, result="1")

    def found(**filters: str) -> set[str]:
        return {job["id"] for job in client.get("/v1/jobs", params=filters).json()["jobs"]}

    assert found(state="succeeded") == {plain}
    assert found(state="queued,running") == {tagged, bulk}
    assert found(tag="night") == {tagged}
    assert found(pool="bulk") == {bulk}
    assert found(task="anything") == set()
    assert found(created_after="2000-01-01T00:00:00Z") == {plain, tagged, bulk}
    assert found(created_before="2000-01-01T00:00:00Z") == set()
    assert found(ids=f"{plain},{bulk}") == {plain, bulk}


def test_a_token_of_another_list_is_refused(service: Service) -> None:
    client = service.client()
    for _ in range(3):
        submit(client)
    token = client.get("/v1/jobs", params={"page_size": "1"}).json()["next_page_token"]
    flipped = token[:5] + ("A" if token[5] != "A" else "B") + token[6:]
    other = service.client("other")

    answers = [
        client.get("/v1/jobs", params={"page_token": flipped}),
        client.get("/v1/jobs", params={"page_token": "x"}),
        client.get("/v1/jobs", params={"page_token": token, "state": "queued"}),
        client.get("/v1/dead-letters", params={"page_token": token}),
        other.get("/v1/jobs", params={"page_token": token}),
    ]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(400, "invalid_page_token")}


@pytest.mark.parametrize(
    "filters",
    [
        {"state": "sleeping"},
        {"task": "a'; DROP TABLE jobs"},
        {"pool": "%"},
        {"tag": "a\0b"},
        {"created_after": "yesterday"},
        {"created_after": "2026-01-01T00:00:00"},
        {"page_size": "many"},
        {"ids": "1,2"},
    ],
    ids=str,
)
def test_a_filter_that_is_none_is_refused(service: Service, filters: dict[str, str]) -> None:
    answer = service.client().get("/v1/jobs", params=filters)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert answer.json()["errors"][0]["pointer"] == f"/query/{next(iter(filters))}"


def test_a_page_too_large_is_as_large_as_it_may_be(service: Service) -> None:
    client = service.client()
    submit(client)

    assert client.get("/v1/jobs", params={"page_size": "1000000000"}).status_code == 200


def test_attempts_are_listed_in_order(service: Service) -> None:
    client = service.client()
    job_id = submit(client)
    run_job(service.database, job_id, State.DEAD, error=ERROR)

    (attempt,) = client.get(f"/v1/jobs/{job_id}/attempts").json()["attempts"]

    assert (attempt["number"], attempt["end"], attempt["worker"], attempt["error"]["message"]) == (
        1,
        "failed",
        "w1",
        "no",
    )


def test_a_cancel_ends_a_live_job_and_is_on_record(service: Service) -> None:
    client = service.client()
    job_id = submit(client)

    first, second = client.post(f"/v1/jobs/{job_id}:cancel"), client.post(f"/v1/jobs/{job_id}:cancel")

    assert [(answer.status_code, answer.json()["state"]) for answer in (first, second)] == [(200, "cancelled")] * 2
    key_id = client.headers["authorization"].split("_")[1]
    assert service.rows("SELECT tenant, actor, action, target FROM audit") == [("acme", key_id, "job.cancel", job_id)]


def test_a_cancel_leaves_an_ended_job_alone(service: Service) -> None:
    client = service.client()
    job_id = submit(client)
    run_job(service.database, job_id, State.SUCCEEDED, result="1")

    assert client.post(f"/v1/jobs/{job_id}:cancel").json()["state"] == "succeeded"
    assert service.rows("SELECT count(*) FROM audit") == [(0,)]


def test_metrics_count_what_was_accepted(service: Service) -> None:
    client = service.client()
    submit(client)

    assert eventually(
        lambda: 'tp_jobs_submitted_total{pool="default",task="photos.thumbnail"} 1.0' in client.get("/metrics").text
    )
    assert 'tp_http_requests_total{route="/v1/jobs",status="202"} 1.0' in client.get("/metrics").text
