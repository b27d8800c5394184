"""Jobs handed in to two real Postgres clusters: where they land, and what is answered when one is lost or has moved."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskplatform.errors import ShardMoved, StoreUnavailable
from taskplatform.ids import SHARDS, locate
from taskplatform.job import NewJob
from taskplatform.store.contract import Accepted, RefusedJob, Replayed
from taskplatform.store.postgres import placing
from tests.fixtures.shards import Sharded, keyed, unkeyed
from tests.fixtures.store import TENANT, a_job, ids

TENANTS = st.sampled_from(["acme", "umbrella", "initech"])
JOBS = st.lists(
    st.one_of(
        st.integers(0, SHARDS - 1).map(unkeyed),
        st.builds(keyed, TENANTS, st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1)),
        st.uuids(version=4).map(lambda job_id: a_job(id=job_id)),
    ),
    min_size=1,
    max_size=60,
    unique_by=lambda job: (job.tenant, job.key or job.id),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(jobs=JOBS, moved=st.integers(0, SHARDS))
def test_every_job_lands_where_its_id_says(sharded: Sharded, jobs: list[NewJob], moved: int) -> None:
    sharded.empty()
    process = sharded.another()
    sharded.wait(process.clusters.known())
    homes = placing.move(sharded.dsns, range(moved), to=1).homes

    answers = sharded.submit(jobs, process)

    landed = {row[0]: number for number in (0, 1) for row in sharded.rows(number, "SELECT id FROM jobs")}
    assert [(answer.id, type(answer)) for answer in answers] == [(job.id, Accepted) for job in jobs]
    assert landed == {job.id: homes[locate(job.id).shard] for job in jobs}
    assert set(sharded.wait(process.get(ids(jobs)))) == set(ids(jobs))


def test_a_key_names_one_job_from_every_process(sharded: Sharded) -> None:
    first, other = keyed(TENANT, "order-7"), keyed(TENANT, "order-7")
    sharded.submit([first])

    (answer,) = sharded.submit([other], sharded.another())

    assert answer == Replayed(id=first.id)


@pytest.mark.parametrize("whole", [False, True])
def test_a_writer_with_an_old_map_is_refused_and_asks_for_the_new_one(sharded: Sharded, *, whole: bool) -> None:
    old = sharded.another()
    sharded.wait(old.open())
    placing.move(sharded.dsns, [200], to=0)
    moved = unkeyed(200)

    (refused,) = sharded.wait(old.clusters.members[1].accept([moved]))
    (answer,) = sharded.submit([moved], old, whole=whole)

    assert isinstance(refused, RefusedJob)
    assert isinstance(refused.error, ShardMoved)
    assert isinstance(answer, Accepted)
    assert sharded.rows(0, "SELECT id FROM jobs") == [(moved.id,)]
    assert old.clusters.homes.version == 2


def test_what_a_lost_cluster_would_keep_is_refused_and_the_rest_is_stored(sharded: Sharded) -> None:
    store = sharded.another(lost=1)
    jobs = [unkeyed(200), unkeyed(1), unkeyed(201), unkeyed(2)]

    answers = sharded.submit(jobs, store)
    with pytest.raises(StoreUnavailable):
        sharded.submit([jobs[0]], store)

    assert [(answer.id, type(answer)) for answer in answers] == [
        (job.id, expected) for job, expected in zip(jobs, [RefusedJob, Accepted] * 2, strict=True)
    ]
    assert all(isinstance(answer.error, StoreUnavailable) for answer in answers if isinstance(answer, RefusedJob))
    assert {row[0] for row in sharded.rows(0, "SELECT id FROM jobs")} == {jobs[1].id, jobs[3].id}
