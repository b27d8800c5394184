"""Short jobs of one task that are handed in together travel together."""

from taskplatform.bundle import is_bundle, open_bundle
from taskplatform.payload import CONTENT_TYPE
from taskplatform.task import TaskSpec
from tests.fixtures.broker import drain
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import SECRET, Service, with_store

SHORT = TaskSpec(name="short", takes_more_positional=True, bundle_jobs=10)


def test_a_batch_of_short_jobs_is_published_in_bundles_and_settled(service: Service) -> None:
    with_store(service.database, lambda store: store.announce([SHORT]))
    short = [{"task": "short", "args": [number]} for number in range(25)]
    said = service.client().post("/v1/jobs:batch", json=[*short, {"task": "anything"}]).json()
    eventually(lambda: service.rows("SELECT count(*) FROM outbox") == [(0,)])

    messages = drain(service.settings.broker_url.get_secret_value(), "jobs.default.normal")

    bundles = [message for message in messages if is_bundle(message.headers)]
    properties = {"content_type": CONTENT_TYPE}
    opened = [open_bundle(one.headers, str(one.body).encode(), properties, [SECRET.encode()]) for one in bundles]
    assert ([len(jobs) for jobs in opened], len(messages)) == ([10, 10, 5], 4)
    assert [str(job.id) for jobs in opened for job in jobs] == [item["id"] for item in said["items"][:25]]


def test_a_task_shows_how_many_of_its_jobs_travel_together(service: Service) -> None:
    with_store(service.database, lambda store: store.announce([SHORT]))

    tasks = service.client().get("/v1/tasks").json()["tasks"]

    assert {task["name"]: task["bundle_jobs"] for task in tasks} == {"anything": 1, "photos.thumbnail": 1, "short": 10}
