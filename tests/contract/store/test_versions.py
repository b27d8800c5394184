from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace as changed_ending

from taskplatform.job import Envelope, State
from taskplatform.store.contract import Release
from taskplatform.store.working import MOST_PASSES, Claimed, ClaimRequest, Ended, GivenBack
from taskplatform.task import Announced, TaskSpec
from tests.fixtures.store import WORKER, DrivenStore, a_job, a_lease, death, give_back, retry, success
from workers.endings import too_new

OLD = TaskSpec(name="shop", positional=("order",))
NEW = TaskSpec(name="shop", version=2, positional=("order", "currency"))
OTHER = TaskSpec(name="other")


def announce(store: DrivenStore, *specs: TaskSpec) -> None:
    store.wait(store.services.announce(specs))


def begin(store: DrivenStore, worker: str, *specs: TaskSpec) -> None:
    """Do what a worker does when it starts."""
    keep(store, worker, {spec.name: spec.version for spec in specs})
    store.work.announce(specs)


def keep(store: DrivenStore, worker: str, versions: Mapping[str, int], *, draining: bool = False) -> None:
    store.work.renew(changed(a_lease(worker), versions=versions, draining=draining))


def decided(claimed: Claimed) -> Ended | GivenBack:
    """Ask a worker that knows version 1 what becomes of a job."""
    return too_new(claimed, "shop.ship", 1, 1_800_000_000.0, Random(7))


def shop(store: DrivenStore) -> Announced:
    return store.wait(store.services.tasks())["shop"]


def test_an_older_worker_that_starts_again_takes_nothing_from_a_newer_one(store: DrivenStore) -> None:
    begin(store, "new", NEW, OTHER)

    begin(store, "old", OLD, OTHER)

    assert shop(store) == Announced(spec=NEW, live=(1, 2))
    assert store.wait(store.services.tasks())["other"] == Announced(spec=OTHER, live=(1,))


def test_a_new_version_is_used_once_a_worker_runs_it(store: DrivenStore) -> None:
    begin(store, "old", OLD)
    announce(store, NEW)
    assert shop(store) == Announced(spec=OLD, live=(1,))

    begin(store, "new", NEW)

    assert shop(store) == Announced(spec=NEW, live=(1, 2))


def test_the_older_version_is_back_when_the_newer_ones_workers_drain(store: DrivenStore) -> None:
    begin(store, "old", OLD)
    begin(store, "new", NEW)

    keep(store, "new", {"shop": 2}, draining=True)
    assert shop(store) == Announced(spec=OLD, live=(1,))
    store.work.end_lease("new")
    begin(store, "old-2", OLD)
    store.work.end_lease("old")
    store.work.end_lease("old-2")

    assert shop(store) == Announced(spec=OLD)


def test_without_workers_the_newest_that_was_announced_is_used(store: DrivenStore) -> None:
    begin(store, "old", OLD)
    announce(store, NEW)
    store.work.end_lease("old")

    assert shop(store) == Announced(spec=NEW)


def test_a_worker_whose_lease_ran_out_runs_nothing(store: DrivenStore) -> None:
    begin(store, "old", OLD)
    begin(store, "new", NEW)
    store.vanish("new")

    assert shop(store) == Announced(spec=OLD, live=(1,))
    keep(store, "new", {"shop": 2})
    assert shop(store) == Announced(spec=NEW, live=(1, 2))


def test_a_spec_of_code_that_knows_no_versions_is_version_one(store: DrivenStore) -> None:
    announce(store, NEW)
    store.rows("UPDATE tasks SET spec = %s, versions = '{}'", '{"name": "shop", "positional": ["order"]}')

    assert shop(store) == Announced(spec=OLD)


def test_a_job_keeps_its_version_from_its_acceptance_to_its_end_and_through_a_replay(store: DrivenStore) -> None:
    job = a_job(task_version=3)
    store.accept(job, a_job())
    store.end(GivenBack(id=job.id, attempt=store.started(job).attempt))
    (released,) = store.wait(store.services.release_due(10))
    assert released.envelope.task_version == 3
    assert store.job(job.id).task_version == 3
    store.end(death(store.started(job)))
    assert store.job(job.id).task_version == 3

    (again,) = store.wait(store.services.replay(job.tenant, [job.id]))

    assert again.envelope.task_version == 3
    store.end(success(store.started(job, series=1)))
    assert store.job(job.id).task_version == 3


@pytest.mark.parametrize("gate", [{"state": State.BLOCKED, "blocked_on": "queue_full"}, {}])
def test_every_message_of_a_job_says_its_version(store: DrivenStore, gate: dict[str, object]) -> None:
    job = a_job(task_version=3, **gate)
    store.accept(job)
    published: list[Envelope] = []

    async def publish(releases: Sequence[Release]) -> set[UUID]:
        published.extend(release.envelope for release in releases)
        return {job.id}

    if gate:
        store.wait(store.services.release_blocked("default", job.priority, 10))
    store.wait(store.services.relay(0, 10, publish))
    stranded = store.wait(store.services.stranded("default", job.priority, 0, 10))

    assert [envelope.task_version for envelope in published] == [3]
    assert [release.envelope.task_version for release in stranded] == [3]


def test_a_claim_tells_the_version_whatever_the_message_says(store: DrivenStore) -> None:
    claimed = store.running(a_job(task_version=3))

    assert claimed.task_version == 3


def test_what_was_given_back_for_its_version_is_counted_apart_until_a_replay(store: DrivenStore) -> None:
    job = a_job(task_version=2)
    store.end(give_back(store.running(job)))
    assert store.wait(store.services.release_due(10))
    store.end(retry(store.started(job)))
    assert store.wait(store.services.release_due(10))
    claimed = store.started(job)
    assert (claimed.attempt, claimed.passes) == (3, 0)
    for passes in range(MOST_PASSES - 1):
        ending = decided(claimed)
        assert isinstance(ending, GivenBack)
        store.end(changed_ending(ending, wait_seconds=0.0))
        assert store.wait(store.services.release_due(10))
        claimed = store.started(job)
        assert claimed.passes == passes + 1
    last = decided(claimed)
    assert isinstance(last, Ended)
    store.end(last)
    assert store.job(job.id).state is State.DEAD
    store.wait(store.services.replay(job.tenant, [job.id]))

    ending = decided(store.started(job, series=1))

    assert isinstance(ending, GivenBack)
    assert ending.wait_seconds < 1


@pytest.mark.parametrize(
    ("lease", "served"),
    [
        ({"versions": {"shop.ship": 2}}, True),
        ({"versions": {"shop.ship": 3}}, True),
        ({"versions": {"shop.ship": 1}}, False),
        ({"versions": {}}, False),
        ({"versions": {"shop.ship": 2}, "pool": "other"}, False),
        ({"versions": {"shop.ship": 2}, "draining": True}, False),
        ({"versions": {"shop.ship": 2}, "lease_seconds": 0.0}, False),
    ],
)
def test_nothing_is_given_up_while_a_worker_lives_that_could_run_it(
    store: DrivenStore, lease: dict[str, Any], served: bool
) -> None:
    job = a_job(task_version=2)
    store.accept(job)
    store.rows("UPDATE jobs SET passes = %s", MOST_PASSES - 1)
    store.work.renew(changed(a_lease("new"), **lease))

    claimed = store.started(job)

    assert (claimed.passes, claimed.served) == (MOST_PASSES - 1, served)
    assert isinstance(decided(claimed), GivenBack if served else Ended)


def test_a_version_is_in_use_once_a_worker_of_its_own_pool_runs_it(store: DrivenStore) -> None:
    begin(store, "old", OLD, OTHER)
    elsewhere = changed(a_lease("elsewhere"), pool="other", versions={"shop": 2, "other": 1})
    store.work.renew(elsewhere)
    store.work.announce([NEW, OTHER])
    assert shop(store) == Announced(spec=OLD, live=(1,))

    begin(store, "old-2", OLD, OTHER)
    assert shop(store) == Announced(spec=OLD, live=(1,))
    begin(store, "new", NEW, OTHER)

    assert shop(store) == Announced(spec=NEW, live=(1, 2))


def test_a_message_without_a_row_brings_its_version(store: DrivenStore) -> None:
    job = a_job()
    envelope = Envelope(
        id=job.id, task="shop", body=job.body, tenant=job.tenant, pool="default", series=None, task_version=2
    )
    request = ClaimRequest(worker=WORKER, token="t", wanted=[(job.id, -1)], adopt=[(envelope, 5)])

    _, (claimed,) = store.work.turn([], request)

    assert (claimed.id, store.job(job.id).task_version) == (job.id, 2)


def test_what_is_given_back_for_a_while_waits_so_long_and_says_why(store: DrivenStore) -> None:
    job = a_job()
    claimed = store.running(job)

    store.end(GivenBack(id=job.id, attempt=claimed.attempt, wait_seconds=60, error='{"type":"UnknownVersion"}'))

    found = store.job(job.id)
    assert (found.state, found.failures) == (State.RETRYING, 0)
    assert msgspec.json.decode(found.error or "") == {"type": "UnknownVersion"}
    assert store.wait(store.services.release_due(10)) == []
    ((wait, error),) = store.rows(
        "SELECT extract(epoch FROM due_at - now()), (SELECT error FROM attempts) FROM jobs WHERE id = %s", job.id
    )
    assert 50 < wait <= 60
    assert error == '{"type":"UnknownVersion"}'
