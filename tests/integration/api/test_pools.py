"""What the API tells of pools: how many workers each should have, and why."""

from taskplatform.auth import Scope
from taskplatform.autoscale.contract import LEASE, Choice
from taskplatform.autoscale.policy import Memory, Rules, Sample, decide
from taskplatform.store.postgres.store import PostgresStore
from tests.integration.api.conftest import Service, with_store


def decided(service: Service, *ready: int) -> None:
    """Have an autoscaler decide about the pool `default` with so many ready jobs of a second each."""

    async def decided(store: PostgresStore) -> None:
        await store.hold_lease(LEASE, "one", 60.0)
        for number in ready:
            sample = Sample(at=0.0, ready=number, ready_work_seconds=float(number))
            decision, _ = decide(Rules(), sample, Memory())
            await store.record_decisions(
                "one", [Choice(pool="default", sample=sample, decision=decision, worker_seconds=1.0)]
            )

    with_store(service.database, decided)


def test_the_newest_decision_says_how_many_workers_there_should_be(service: Service) -> None:
    decided(service, 200, 70)
    client = service.client("acme", Scope.WATCH)

    one = client.get("/v1/pools/default").json()
    every = client.get("/v1/pools").json()

    assert (one["pool"], one["workers"], one["desired"], one["reason"]) == ("default", 0, 3, "load")
    assert (one["facts"]["ready"], one["facts"]["needed"]) == (70, 3)
    assert every == {"decisions": [one]}


def test_decisions_are_listed_the_newest_first(service: Service) -> None:
    decided(service, 10, 200, 70)
    client = service.client("acme", Scope.WATCH)

    found = client.get("/v1/pools/default/decisions", params={"limit": 2}).json()["decisions"]
    since = client.get("/v1/pools/default/decisions", params={"since": found[0]["at"]}).json()["decisions"]

    assert [one["facts"]["ready"] for one in found] == [70, 200]
    assert since == found[:1]


def test_an_autoscaler_that_is_silent_gives_no_number(service: Service) -> None:
    decided(service, 10)
    service.rows("UPDATE scale_decisions SET at = at - interval '1 minute' RETURNING 1")
    client = service.client("acme", Scope.WATCH)

    answer = client.get("/v1/pools/default")

    assert (answer.status_code, answer.json()["code"]) == (503, "autoscaler_silent")
    assert client.get("/v1/pools/other").status_code == 404
    assert client.get("/v1/pools/No%20pool").status_code == 422
