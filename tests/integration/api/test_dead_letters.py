"""Dead letters: their list, what they hold, and their replay."""

import base64
from typing import Any

import httpx2
import pytest

from taskplatform.auth import Scope
from taskplatform.job import Reason, State
from taskplatform.store.contract import BuriedMessage
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Service, run_job, with_store

BODY = b'[[1],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


@pytest.fixture
def service(empty_service: Service) -> Service:
    """One service for all tests of this file."""
    return empty_service


def dead_job(service: Service, client: httpx2.Client) -> str:
    job_id = str(client.post("/v1/jobs", json={"task": "anything", "args": [7]}).json()["id"])
    run_job(service.database, job_id, State.DEAD, error='{"type": "ValueError", "message": "no"}')
    return job_id


def bury(service: Service, raw: bytes, *, task: str | None = "anything", reason: Reason = Reason.UNKNOWN_TASK) -> int:
    """Keep a message that never became a job, and give its number."""
    message = BuriedMessage(
        reason=reason,
        queue="jobs.default.dead",
        detail="why",
        headers='{"task": "x"}',
        raw=raw,
        tenant="acme",
        task=task,
    )
    with_store(service.database, lambda store: store.bury([message]))
    return int(service.rows("SELECT max(id) FROM dead_letters")[0][0])


def test_a_dead_job_is_listed(service: Service) -> None:
    client = service.client()
    job_id = dead_job(service, client)

    (letter,) = client.get("/v1/dead-letters", params={"replayed": "false", "task": "anything"}).json()["dead_letters"]

    assert (letter["job_id"], letter["reason"], letter["replayed_at"]) == (job_id, "attempts_exhausted", None)
    assert client.get("/v1/dead-letters", params={"reason": "poison"}).json()["dead_letters"] == []


def test_a_replayed_job_is_queued_again_under_its_id(service: Service) -> None:
    client = service.client()
    job_id = dead_job(service, client)
    letter_id = client.get("/v1/dead-letters").json()["dead_letters"][0]["id"]

    answer = client.post(f"/v1/dead-letters/{letter_id}:replay")

    assert (answer.status_code, answer.json()["id"], answer.json()["state"]) == (202, job_id, "queued")
    assert answer.headers["location"] == f"/v1/jobs/{job_id}"
    assert client.get(f"/v1/dead-letters/{letter_id}").json()["replayed_at"] is not None
    assert service.rows("SELECT action, target, detail FROM audit") == [
        ("dead_letter.replay", str(letter_id), f"job {job_id}")
    ]
    assert eventually(lambda: service.rows("SELECT count(*) FROM outbox") == [(0,)])


def test_a_second_replay_is_refused(service: Service) -> None:
    client = service.client()
    dead_job(service, client)
    letter_id = client.get("/v1/dead-letters").json()["dead_letters"][0]["id"]
    client.post(f"/v1/dead-letters/{letter_id}:replay")

    answer = client.post(f"/v1/dead-letters/{letter_id}:replay")

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_a_message_is_shown_whole(service: Service) -> None:
    letter_id = bury(service, b"\xff\x00", task=None, reason=Reason.UNDECODABLE)

    shown = service.client().get(f"/v1/dead-letters/{letter_id}").json()

    assert base64.b64decode(shown["raw"]) == b"\xff\x00"
    assert (shown["headers"], shown["job_id"]) == ({"task": "x"}, None)


def test_a_message_whose_task_is_known_by_now_becomes_a_job(service: Service) -> None:
    client = service.client()
    letter_id = bury(service, BODY)

    answer = client.post(f"/v1/dead-letters/{letter_id}:replay")

    said: dict[str, Any] = answer.json()
    assert (answer.status_code, said["task"], said["args"], said["state"]) == (202, "anything", [1], "queued")
    assert client.get(f"/v1/dead-letters/{letter_id}").json()["replayed_at"] is not None


def test_a_message_that_holds_no_job_cannot_be_replayed(service: Service) -> None:
    client = service.client()
    letters = [bury(service, raw) for raw in (b"\xff", b"", b"{}", b"[1,2,3]")]

    answers = [client.post(f"/v1/dead-letters/{letter_id}:replay") for letter_id in letters]

    assert {answer.status_code for answer in answers} == {409}
    assert service.stored() == 0


def test_letters_without_a_tenant_are_for_administrators(service: Service) -> None:
    message = BuriedMessage(reason=Reason.UNDECODABLE, queue="q", detail="", headers="{}", raw=b"x")
    with_store(service.database, lambda store: store.bury([message]))

    seen = [service.client("acme", *scopes).get("/v1/dead-letters").json() for scopes in ([Scope.READ], [Scope.ADMIN])]

    assert [len(page["dead_letters"]) for page in seen] == [0, 1]


def test_a_number_that_is_none_is_refused(service: Service) -> None:
    client = service.client()

    said = {number: client.get(f"/v1/dead-letters/{number}").status_code for number in ("0", "x", "9" * 30, "77")}

    assert said == {"0": 422, "x": 422, "9" * 30: 422, "77": 404}
