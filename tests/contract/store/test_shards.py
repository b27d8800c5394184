"""Two real Postgres clusters as one store: what is merged, where shards move, and what a lost cluster takes along."""

import random
import socket
from dataclasses import replace
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskplatform.auth import Scope, new_key
from taskplatform.errors import Conflict, ShardUnavailable, StoreUnavailable
from taskplatform.freshness import START, Watermark
from taskplatform.ids import SHARDS, locate
from taskplatform.job import Reason, State
from taskplatform.shards import cluster_of_row, continued
from taskplatform.store.clusters import has_moved
from taskplatform.store.contract import Accepted, BuriedMessage, JobFilter, LetterFilter, RefusedJob
from taskplatform.store.postgres import placing
from taskplatform.store.postgres.raw import RawConnection
from taskplatform.store.postgres.results import ResultReader, ShardedReader
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.store.sharded import ShardedStore
from tests.fixtures.shards import Sharded, keyed, unkeyed
from tests.fixtures.store import TENANT


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.integers(0, 2**128 - 1), min_size=50, max_size=200))
def test_postgres_and_python_agree_about_the_shard_of_any_id(database: str, values: list[int]) -> None:
    ids = [UUID(int=value) for value in values]

    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT shard_of(id) FROM unnest(%s::uuid[]) AS i (id)", [ids]).fetchall()

    assert [shard for (shard,) in found] == [locate(job_id).shard for job_id in ids]


def test_the_neighbours_of_a_job_that_is_not_at_home_are_stored_beside_it(sharded: Sharded) -> None:
    placing.move(sharded.dsns, [200], to=0)
    jobs = [unkeyed(199), unkeyed(200), keyed(TENANT, "order-1"), unkeyed(201)]

    answers = sharded.wait(sharded.store.clusters.members[1].accept(jobs))

    assert [type(answer) for answer in answers] == [Accepted, RefusedJob, Accepted, Accepted]
    assert {row[0] for row in sharded.rows(1, "SELECT id FROM jobs")} == {jobs[at].id for at in (0, 2, 3)}


def test_a_reader_with_an_old_map_finds_a_job_of_a_moved_shard(sharded: Sharded) -> None:
    old = sharded.another()
    sharded.wait(old.open())
    placing.move(sharded.dsns, [200], to=0)
    moved = unkeyed(200)
    sharded.submit([moved], sharded.another())

    found = sharded.wait(old.get([moved.id]))

    assert set(found) == {moved.id}


def test_nothing_is_said_for_later_of_a_job_that_is_not_there(sharded: Sharded) -> None:
    counting = PostgresStore(sharded.dsns[0], cluster=0, watermark=Watermark())
    store = ShardedStore([counting, PostgresStore(sharded.dsns[1], cluster=1)])
    there, absent = unkeyed(1), unkeyed(2)
    sharded.submit([there], store)

    found = sharded.wait(store.look([there.id], START))
    # Its shard may be given to the other cluster, which has a log of its own, before it comes.
    missed = sharded.wait(store.look([absent.id], START))

    sharded.wait(store.close())
    assert found.since is not None
    assert (missed.jobs, missed.since) == ({}, None)


def test_a_process_that_knows_one_cluster_alone_cannot_put_a_job_where_it_is_not_at_home(sharded: Sharded) -> None:
    alone = PostgresStore(sharded.dsns[0])

    (refused,) = sharded.wait(alone.accept([unkeyed(200)]))

    assert has_moved(refused)
    sharded.wait(alone.close())
    assert sharded.rows(0, "SELECT count(*) FROM jobs") == [(0,)]


def test_a_shard_that_holds_jobs_cannot_be_given_another_home(sharded: Sharded) -> None:
    sharded.submit([unkeyed(200)])

    with pytest.raises(Conflict, match="holds jobs"):
        placing.move(sharded.dsns, [199, 200], to=0)

    assert placing.ensure_map(sharded.dsns).version == 1


def test_no_cluster_hears_of_a_map_by_which_another_would_lose_jobs(sharded: Sharded, database: str) -> None:
    dsns = [*sharded.dsns, database]
    placing.ensure_map(dsns)
    sharded.submit([unkeyed(200)])

    with pytest.raises(Conflict, match="cluster 1 holds jobs"):
        placing.move(dsns, [7, 200], to=2)

    assert [state.known.map.version for state in placing.look(dsns) if state.known] == [1, 1, 1]


def test_a_number_is_not_given_again_when_all_rows_are_gone(sharded: Sharded) -> None:
    def bury() -> None:
        letter = BuriedMessage(reason=Reason.MALFORMED, queue="q", detail="", headers="{}", raw=b"", job_id=uuid4())
        sharded.wait(
            sharded.store.bury([letter, replace(letter, job_id=unkeyed(1).id), replace(letter, job_id=unkeyed(200).id)])
        )

    bury()
    before = sharded.letter_ids()
    for number in (0, 1):
        sharded.rows(number, "DELETE FROM dead_letters")
    placing.move(sharded.dsns, [7, 207], to=0)

    bury()

    after = sharded.letter_ids()
    assert {cluster_of_row(row) for row in after} == {0, 1}
    for cluster in (0, 1):
        assert min(row for row in after if cluster_of_row(row) == cluster) > max(
            row for row in before if cluster_of_row(row) == cluster
        )


def test_a_move_that_was_cut_off_between_clusters_that_lose_shards_is_finished_by_the_same_move(
    sharded: Sharded, database: str
) -> None:
    dsns = [*sharded.dsns, database]
    placing.ensure_map(dsns)
    placing.move(dsns, [7, 200, 201], to=2)
    for dsn in dsns[1:]:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM shard_maps WHERE version = 2")
    sharded.wait(sharded.store.clusters.members[1].accept([unkeyed(200)]))

    with pytest.raises(Conflict, match="cluster 1 holds jobs"):
        placing.move(dsns, [7, 200, 201], to=2)

    known = [state.known.map for state in placing.look(dsns) if state.known]
    assert [(found.version, found.homes[7], found.homes[200], found.homes[201]) for found in known] == [
        (3, 2, 1, 2)
    ] * 3


def test_init_makes_no_map_known_to_a_cluster_that_would_lose_jobs(sharded: Sharded) -> None:
    placing.move(sharded.dsns, [200], to=0)
    sharded.rows(1, "DELETE FROM shard_maps WHERE version = 2")
    sharded.wait(sharded.store.clusters.members[1].accept([unkeyed(200)]))

    with pytest.raises(Conflict, match="cluster 1 holds jobs"):
        placing.ensure_map(sharded.dsns)

    assert sharded.rows(1, "SELECT max(version) FROM shard_maps") == [(1,)]


def test_clusters_in_another_order_than_their_maps_say_are_refused(sharded: Sharded) -> None:
    turned = ShardedStore([PostgresStore(dsn, cluster=number) for number, dsn in enumerate(reversed(sharded.dsns))])

    with pytest.raises(Conflict, match="is cluster 1 by its own map"):
        placing.ensure_map(sharded.dsns[::-1])
    with pytest.raises(StoreUnavailable):
        sharded.wait(turned.get([unkeyed(7).id]))

    sharded.wait(turned.close())


def test_a_cluster_in_the_place_of_another_is_asked_nothing(sharded: Sharded) -> None:
    dsn = sharded.dsns[1]
    store = PostgresStore(dsn, cluster=0)
    reader = ResultReader(dsn, 0)

    with pytest.raises(StoreUnavailable, match="cluster 0 is cluster 1 by its own map"):
        sharded.wait(store.get([unkeyed(7).id]))
    with pytest.raises(StoreUnavailable, match="cluster 0 is cluster 1 by its own map"):
        RawConnection(dsn, 0)
    with pytest.raises(StoreUnavailable, match="cluster 0 is cluster 1 by its own map"):
        reader.standing(unkeyed(7).id)

    sharded.wait(store.close())


def test_a_cluster_without_a_map_is_not_taken_for_one_of_several(sharded: Sharded, database: str) -> None:
    store = PostgresStore(database, cluster=1)

    with pytest.raises(StoreUnavailable, match="taskplatform init"):
        sharded.wait(store.get([unkeyed(200).id]))

    sharded.wait(store.close())


def test_a_reader_of_results_asks_the_cluster_of_the_id_and_no_other(sharded: Sharded) -> None:
    here = unkeyed(1)
    sharded.submit([here])
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        reader = ShardedReader(
            [sharded.dsns[0], f"postgresql://127.0.0.1:{other.getsockname()[1]}/x?connect_timeout=2"]
        )

        found, absent = reader.standing(here.id), reader.standing(unkeyed(2).id)

        with pytest.raises(BlockingIOError):
            other.accept()
        reader.close()
    assert (found and found.state, absent) == (State.QUEUED, None)


def test_a_reader_of_results_finds_a_job_whose_shard_has_moved(sharded: Sharded) -> None:
    reader = ShardedReader(sharded.dsns)
    moved = unkeyed(200)
    before = reader.standing(moved.id)
    placing.move(sharded.dsns, [200], to=0)
    sharded.submit([moved], sharded.another())

    found = reader.standing(moved.id)

    reader.close()
    assert (before, found and found.state) == (None, State.QUEUED)


def test_a_new_map_that_not_every_cluster_heard_of_is_made_known_by_the_next_init(sharded: Sharded) -> None:
    placing.move(sharded.dsns, [200], to=0)
    sharded.rows(0, "DELETE FROM shard_maps WHERE version = 2")

    made = placing.ensure_map(sharded.dsns)

    assert (made.version, made.homes[200]) == (2, 0)
    assert sharded.rows(0, "SELECT max(version) FROM shard_maps") == [(2,)]


def test_a_key_that_one_cluster_lacks_opens_the_door_and_init_gives_it_to_all(sharded: Sharded) -> None:
    key, _ = new_key(TENANT, (Scope.READ,))
    sharded.wait(sharded.store.clusters.members[1].add_key(key))
    other, _ = new_key(TENANT, (Scope.READ,))
    sharded.wait(sharded.store.clusters.members[0].add_key(other))

    found = sharded.wait(sharded.store.key(key.id))
    placing.ensure_map(sharded.dsns)

    assert found is not None
    assert found.id == key.id
    assert set(sharded.rows(1, "SELECT id FROM api_keys")) == {(key.id,), (other.id,)}


def test_pages_lose_and_repeat_no_job_while_others_are_added(sharded: Sharded) -> None:
    jobs = [unkeyed(random.randrange(SHARDS)) for _ in range(60)]
    sharded.submit(jobs)
    shown: list[UUID] = []

    while page := sharded.wait(sharded.store.search(JobFilter(tenant=TENANT, before=shown[-1] if shown else None), 7)):
        shown += [job.id for job in page]
        sharded.submit([unkeyed(random.randrange(SHARDS)) for _ in range(9)])

    assert shown == sorted((job.id for job in jobs), reverse=True)


def test_pages_of_dead_letters_lose_and_repeat_none_while_others_are_added(sharded: Sharded) -> None:
    def letters(number: int) -> list[BuriedMessage]:
        return [
            BuriedMessage(
                reason=Reason.MALFORMED, queue="jobs.default.dead", detail="", headers="{}", raw=b"", job_id=uuid4()
            )
            for _ in range(number)
        ]

    sharded.wait(sharded.store.bury(letters(40)))
    first = sharded.letter_ids()
    before: tuple[int, ...] = ()
    shown: list[int] = []

    while page := sharded.wait(sharded.store.letters(LetterFilter(tenant=None, before=before), 6)):
        before = continued(before, [letter.id for letter in page])
        shown += [letter.id for letter in page]
        if len(shown) < 40:
            sharded.wait(sharded.store.bury(letters(2)))

    assert len(shown) == len(set(shown))
    assert set(first) <= set(shown)
    alone = [sharded.wait(sharded.store.letter(each)) for each in first]
    assert [letter.id for letter in alone if letter is not None] == first


def test_a_dead_letter_is_kept_while_another_cluster_is_away(sharded: Sharded) -> None:
    here, there = unkeyed(1), unkeyed(200)
    sharded.submit([here, there])
    store = sharded.another(lost=1)
    letters = [
        BuriedMessage(reason=Reason.UNKNOWN_TASK, queue="q", detail="", headers="{}", raw=b"", job_id=job_id)
        for job_id in (there.id, here.id, None)
    ]

    done = sharded.wait(store.bury(letters))

    assert done == [False, True, True]
    assert {row[0] for row in sharded.rows(0, "SELECT job_id FROM dead_letters")} == {here.id, None}


def test_what_a_lost_cluster_keeps_is_unavailable_and_nothing_else(sharded: Sharded) -> None:
    here, there = unkeyed(1), unkeyed(200)
    sharded.submit([here, there])
    key, _ = new_key(TENANT, (Scope.READ,))
    sharded.wait(sharded.store.add_key(key))
    store = sharded.another(lost=1)
    sharded.wait(store.open())

    assert set(sharded.wait(store.get([here.id]))) == {here.id}
    assert sharded.wait(store.cancel(TENANT, [here.id])) == {here.id}
    assert sharded.wait(store.done_among([here.id, there.id])) == {here.id}
    assert sharded.wait(store.key(key.id)) is not None
    sharded.wait(store.answer())
    for call in (
        store.get([there.id]),
        store.search(JobFilter(tenant=TENANT), 5),
        store.glance(),
        store.key("unknown"),
    ):
        with pytest.raises(ShardUnavailable, match="cluster 1"):
            sharded.wait(call)
