from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from taskplatform.errors import InvalidInput, OutcomeUnknown, StoreUnavailable
from taskplatform.job import Job, NewJob, Priority, State
from taskplatform.store.contract import Accepted, KeyTaken, LeftOut, RefusedJob, Replayed
from tests.fixtures.store import TENANT, DrivenStore, a_job, ids, success

TOMORROW = datetime.now(UTC) + timedelta(days=1)


def keyed(fingerprint: str = "same", *, key: str = "order-1", **changes: object) -> NewJob:
    return a_job(key=key, fingerprint=fingerprint, **changes)


def outbox(store: DrivenStore) -> list[tuple[int, list[object]]]:
    return store.rows("SELECT id, job_ids FROM outbox ORDER BY id")


def test_an_accepted_job_is_found_as_it_was_handed_in(store: DrivenStore) -> None:
    job = a_job(priority=Priority.HIGH, tags=('a "b"', "c\\d,{}"), max_attempts=9, expires_at=TOMORROW)

    accepted = store.accepted(job)

    assert store.job(job.id) == Job(
        id=job.id,
        tenant=TENANT,
        task=job.task,
        pool=job.pool,
        priority=Priority.HIGH,
        state=State.QUEUED,
        body=job.body,
        attempt=0,
        failures=0,
        max_attempts=9,
        series=0,
        created_at=accepted.created_at,
        expires_at=TOMORROW,
        tags=job.tags,
    )


def test_the_queued_jobs_of_a_batch_share_one_outbox_row(store: DrivenStore) -> None:
    jobs = [a_job() for _ in range(3)]

    answers = store.accept(*jobs)

    ((row, job_ids),) = outbox(store)
    assert sorted(job_ids, key=str) == sorted(ids(jobs))
    assert [answer.outbox_id for answer in answers if isinstance(answer, Accepted)] == [row] * 3


def test_jobs_that_may_not_run_yet_are_not_published(store: DrivenStore) -> None:
    later = a_job(state=State.SCHEDULED, due_at=TOMORROW)
    held = a_job(state=State.BLOCKED, blocked_on="queue_full")
    now = a_job()

    answers = store.accept(later, held, now)

    ((row, job_ids),) = outbox(store)
    assert job_ids == [now.id]
    assert [answer.outbox_id for answer in answers if isinstance(answer, Accepted)] == [None, None, row]


def test_answers_come_in_the_order_of_the_jobs(store: DrivenStore) -> None:
    keys = [None, "a", "b", "a", None, "b"]
    jobs = [a_job() if key is None else keyed(key=key) for key in keys]

    answers = store.accept(*jobs)

    assert [answer.id for answer in answers] == ids([jobs[0], jobs[1], jobs[2], jobs[1], jobs[4], jobs[2]])


def test_confirmed_outbox_rows_go_with_the_next_batch(store: DrivenStore) -> None:
    first = store.accepted(a_job())
    assert first.outbox_id is not None

    (second,) = store.wait(store.services.accept([a_job()], settled=[first.outbox_id]))

    assert isinstance(second, Accepted)
    assert [row for row, _ in outbox(store)] == [second.outbox_id]


def test_the_same_batch_again_stores_nothing_twice_and_is_accepted_again(store: DrivenStore) -> None:
    jobs = [a_job(), keyed()]
    first = store.accept(*jobs)

    again = store.accept(*jobs)

    assert again == [replace(answer, outbox_id=None) for answer in first if isinstance(answer, Accepted)]
    assert len(outbox(store)) == 1


def test_the_same_job_again_after_it_ended_does_not_run_again(store: DrivenStore) -> None:
    job = a_job()
    store.end(success(store.running(job)))

    store.accepted(job)

    assert store.job(job.id).state is State.SUCCEEDED
    assert store.rows("SELECT id FROM jobs") == []


def test_a_key_with_the_same_body_names_the_first_job(store: DrivenStore) -> None:
    first = store.accepted(keyed())

    assert store.accept(keyed()) == [Replayed(id=first.id)]


def test_a_key_with_another_body_is_taken(store: DrivenStore) -> None:
    first = store.accepted(keyed())

    assert store.accept(keyed("other")) == [KeyTaken(id=first.id)]


def test_a_key_still_names_its_job_after_the_job_has_ended(store: DrivenStore) -> None:
    job = keyed()
    store.end(success(store.running(job)))

    assert store.accept(keyed()) == [Replayed(id=job.id)]


def test_the_keys_of_tenants_are_apart(store: DrivenStore) -> None:
    store.accepted(keyed())

    store.accepted(keyed("other", tenant="umbrella"))


def test_one_key_many_times_in_a_batch_is_one_job(store: DrivenStore) -> None:
    jobs = [keyed(), keyed(), keyed("other"), a_job()]

    first, same, other, free = store.accept(*jobs)

    assert isinstance(first, Accepted)
    assert (same, other) == (Replayed(id=first.id), KeyTaken(id=first.id))
    assert isinstance(free, Accepted)


def test_a_whole_is_stored_with_one_outbox_row_or_named_again(store: DrivenStore) -> None:
    first = [keyed(key=key) for key in "ab"]
    stored = store.wait(store.services.accept_whole(first))

    again = store.wait(store.services.accept_whole([keyed(key=key) for key in "ab"]))

    assert [isinstance(answer, Accepted) for answer in stored] == [True, True]
    assert again == [Replayed(id=job.id) for job in first]
    assert len(outbox(store)) == 1


def test_a_whole_with_a_key_that_is_taken_stores_nothing(store: DrivenStore) -> None:
    first = store.accepted(keyed())
    jobs = [keyed("other", key="new"), keyed("other"), a_job()]

    answers = store.wait(store.services.accept_whole(jobs))

    assert answers == [LeftOut(id=jobs[0].id), KeyTaken(id=first.id), LeftOut(id=jobs[2].id)]
    assert store.rows("SELECT id FROM jobs") == [(first.id,)]
    assert store.rows("SELECT key FROM idempotency_keys") == [("order-1",)]


def test_a_whole_with_a_value_that_cannot_be_stored_stores_nothing(store: DrivenStore) -> None:
    with pytest.raises(InvalidInput):
        store.wait(store.services.accept_whole([a_job(), a_job(body="\0")]))

    assert store.rows("SELECT id FROM jobs") == []


def test_a_key_whose_time_is_over_may_name_another_job(store: DrivenStore) -> None:
    store.accepted(keyed())
    store.rows("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")

    second = store.accepted(keyed("other"))

    assert store.accept(keyed("other")) == [Replayed(id=second.id)]


def test_fifty_at_once_with_one_key_make_one_job(store: DrivenStore) -> None:
    answers = [store.begin(store.services.accept([keyed(), a_job()])) for _ in range(50)]

    got = [answer.result(60)[0] for answer in answers]

    (winner,) = [answer.id for answer in got if isinstance(answer, Accepted)]
    assert [answer for answer in got if not isinstance(answer, Accepted)] == [Replayed(id=winner)] * 49
    assert store.rows("SELECT count(*) FROM jobs") == [(51,)]


def test_batches_with_the_same_keys_in_another_order_do_not_fail_each_other(store: DrivenStore) -> None:
    keys = [f"key-{n}" for n in range(40)]

    answers = [
        store.begin(store.services.accept([keyed(key=key) for key in keys[::step]]))
        for step in (1, -1)
        for _ in range(8)
    ]

    outcomes = [type(answer) for batch in answers for answer in batch.result(60)]
    assert (outcomes.count(Accepted), outcomes.count(Replayed)) == (40, 15 * 40)


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_a_value_that_postgres_refuses_harms_no_other_job_of_the_batch(store: DrivenStore, bad: str) -> None:
    good = [a_job() for _ in range(7)]
    refused = a_job(body=bad)

    answers = store.accept(*good[:3], refused, *good[3:])

    assert isinstance(answers[3], RefusedJob)
    assert [answer.id for answer in answers if isinstance(answer, Accepted)] == ids(good)
    assert len(store.wait(store.services.get(ids(good)))) == 7


@pytest.mark.parametrize("sqlstate", ["53100", "TP001"], ids=["disk full", "shard moved"])
def test_a_batch_of_which_a_part_is_stored_is_unknown_and_the_same_again_is_safe(
    store: DrivenStore, sqlstate: str
) -> None:
    stored, refused, hindered = a_job(), a_job(body="\0"), a_job(task="hindered")
    store.rows(
        "CREATE FUNCTION hinder() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE 'no room' USING ERRCODE = '{sqlstate}'; END $$"
    )
    store.rows(
        "CREATE TRIGGER hinder BEFORE INSERT ON jobs FOR EACH ROW"
        " WHEN (NEW.task = 'hindered') EXECUTE FUNCTION hinder()"
    )

    with pytest.raises(StoreUnavailable):
        store.accept(refused, hindered)
    with pytest.raises(OutcomeUnknown, match="no room"):
        store.accept(stored, refused, hindered)
    store.rows("DROP TRIGGER hinder ON jobs")

    assert [type(answer) for answer in store.accept(stored, refused, hindered)] == [Accepted, RefusedJob, Accepted]
    assert store.rows("SELECT count(*) FROM jobs") == [(2,)]


def test_a_job_whose_first_namesake_was_refused_is_taken(store: DrivenStore) -> None:
    refused, taken = store.accept(keyed(body="\0"), keyed())

    assert isinstance(refused, RefusedJob)
    assert isinstance(taken, Accepted)


def test_an_empty_batch_is_no_error(store: DrivenStore) -> None:
    assert store.accept() == []


def test_a_batch_larger_than_what_a_socket_holds_is_stored(store: DrivenStore) -> None:
    jobs = [a_job(body=f'[["{"x" * 60_000}{number}"],{{}},{{}}]') for number in range(200)]

    answers = store.accept(*jobs)

    assert [answer.id for answer in answers] == ids(jobs)
    assert store.job(jobs[-1].id).body == jobs[-1].body
