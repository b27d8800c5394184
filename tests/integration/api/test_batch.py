"""Batches: every item gets its own answer, and a bad one harms no other."""

import json
from typing import Any

import pytest

from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Service

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def service(empty_service: Service) -> Service:
    """One service for all tests of this file."""
    return empty_service


def items(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"task": "anything", "args": [number], **more} for number in range(count)]


def keyed(count: int, *, first: int = 0) -> list[dict[str, Any]]:
    return [{**item, "idempotency_key": f"k{first + number}"} for number, item in enumerate(items(count))]


def test_a_batch_is_stored_and_published_whole(service: Service) -> None:
    answer = service.client().post("/v1/jobs:batch", json=items(500))

    said = answer.json()
    assert (answer.status_code, said["accepted"], said["rejected"]) == (202, 500, 0)
    assert {item["state"] for item in said["items"]} == {"queued"}
    assert len({item["id"] for item in said["items"]}) == service.stored() == 500
    assert eventually(lambda: service.rows("SELECT count(*) FROM outbox") == [(0,)])


def test_items_keep_their_order(service: Service) -> None:
    said = service.client().post("/v1/jobs:batch", json=items(50)).json()

    bodies = dict(service.rows("SELECT id::text, (body::jsonb)->0->>0 FROM jobs"))
    assert [bodies[item["id"]] for item in said["items"]] == [str(number) for number in range(50)]


def test_a_bad_item_harms_no_other(service: Service) -> None:
    sent = [*items(3), {"task": "nobody"}, {"task": "anything", "args": 3}, *items(2)]

    answer = service.client().post("/v1/jobs:batch", json=sent)

    said = answer.json()
    assert (answer.status_code, said["accepted"], said["rejected"]) == (207, 5, 2)
    assert [item["status"] for item in said["items"]] == [202, 202, 202, 422, 422, 202, 202]
    assert [item["problem"]["code"] for item in said["items"][3:5]] == ["unknown_task", "invalid_input"]
    assert service.stored() == 5


def test_a_batch_of_bad_items_is_refused(service: Service) -> None:
    answer = service.client().post("/v1/jobs:batch", json=[{"task": "nobody"}] * 3)

    said = answer.json()
    assert (answer.status_code, said["code"], said["rejected"]) == (422, "batch_rejected", 3)
    assert [item["status"] for item in said["items"]] == [422] * 3


def test_lines_of_json_are_a_batch_too(service: Service) -> None:
    lines = [json.dumps(item).encode() for item in items(3)] + [b"{oops", b'{"task":"anything","args":["\xff"]}', b""]

    answer = service.client().post("/v1/jobs:batch", content=b"\n".join(lines), headers=NDJSON)

    codes = [item.get("problem", {}).get("code") for item in answer.json()["items"]]
    assert (answer.status_code, codes) == (207, [None, None, None, "malformed_json", "malformed_json"])


def test_an_array_that_is_none_stores_nothing(service: Service) -> None:
    client = service.client()
    json_type = {"Content-Type": "application/json"}
    bad = {
        b"[": 400,
        b"[{}": 400,
        b'[{"task":"anything"},]': 400,
        b"{}": 422,
        b"[]": 422,
        b"3": 422,
        b"": 400,
        b"\xff": 400,
    }

    answers = {sent: client.post("/v1/jobs:batch", content=sent, headers=json_type).status_code for sent in bad}

    assert answers == bad
    assert service.stored() == 0


def test_too_many_items_are_refused(service: Service) -> None:
    answer = service.client().post("/v1/jobs:batch", json=items(1001))

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert service.stored() == 0


def test_every_item_may_have_a_key(service: Service) -> None:
    client = service.client()
    first = client.post("/v1/jobs:batch", json=keyed(3)).json()

    second = client.post("/v1/jobs:batch", json=keyed(4)).json()

    assert [item.get("replayed", False) for item in second["items"]] == [True, True, True, False]
    assert [item["id"] for item in second["items"][:3]] == [item["id"] for item in first["items"]]
    assert service.stored() == 4


def test_a_key_twice_in_a_batch_is_one_job(service: Service) -> None:
    same, other = items(1, idempotency_key="k")[0], items(2, idempotency_key="k")[1]

    said = service.client().post("/v1/jobs:batch", json=[same, same, other]).json()

    assert said["items"][0]["id"] == said["items"][1]["id"]
    assert said["items"][2]["problem"]["code"] == "idempotency_key_reused"
    assert service.stored() == 1


def test_one_key_for_the_whole_batch_makes_a_repetition_safe(service: Service) -> None:
    client = service.client()
    first = client.post("/v1/jobs:batch", json=items(3), headers={"Idempotency-Key": "b"}).json()

    second = client.post("/v1/jobs:batch", json=items(3), headers={"Idempotency-Key": "b"}).json()

    assert [item["id"] for item in second["items"]] == [item["id"] for item in first["items"]]
    assert service.stored() == 3


def test_an_atomic_batch_with_a_bad_item_stores_nothing(service: Service) -> None:
    answer = service.client().post("/v1/jobs:batch?atomic=true", json=[*items(2), {"task": "nobody"}])

    assert [item["problem"]["code"] for item in answer.json()["items"]] == ["batch_rejected"] * 2 + ["unknown_task"]
    assert answer.status_code == 422
    assert service.stored() == 0


def test_a_good_atomic_batch_is_stored(service: Service) -> None:
    answer = service.client().post("/v1/jobs:batch?atomic=true", json=items(5))

    assert (answer.status_code, answer.json()["accepted"]) == (202, 5)


def test_the_key_of_an_atomic_batch_names_that_batch_alone(service: Service) -> None:
    client = service.client()
    client.post("/v1/jobs:batch?atomic=true", json=items(2), headers={"Idempotency-Key": "b"})

    answer = client.post("/v1/jobs:batch?atomic=true", json=items(4), headers={"Idempotency-Key": "b"})

    codes = [item["problem"]["code"] for item in answer.json()["items"]]
    assert codes == ["idempotency_key_reused"] * 2 + ["batch_rejected"] * 2
    assert answer.status_code == 422
    assert service.stored() == 2
