from datetime import UTC, datetime, timedelta

import pytest

from taskplatform.auth import Scope, new_key
from taskplatform.errors import InvalidInput
from taskplatform.job import AttemptEnd, Reason, State
from taskplatform.store.contract import AuditEntry, BuriedMessage, LetterFilter
from tests.fixtures.store import TENANT, DrivenStore, a_job, death, ids, retry, success


def test_a_cancelled_job_has_ended(store: DrivenStore) -> None:
    job = a_job()
    store.accepted(job)

    assert store.wait(store.services.cancel(TENANT, [job.id])) == {job.id}
    assert store.job(job.id).state is State.CANCELLED
    assert store.wait(store.services.done_among([job.id])) == {job.id}


def test_a_cancel_takes_a_running_job_away_from_its_attempt(store: DrivenStore) -> None:
    claimed = store.running()

    cancelled = store.wait(store.services.cancel(TENANT, [claimed.id]))

    assert cancelled == {claimed.id}
    assert store.end(success(claimed)) == set()
    assert store.ends(claimed.id) == [AttemptEnd.CANCELLED]


def test_only_one_of_two_cancels_has_cancelled(store: DrivenStore) -> None:
    job = a_job()
    store.accepted(job)
    store.wait(store.services.cancel(TENANT, [job.id]))

    assert store.wait(store.services.cancel(TENANT, [job.id])) == set()


def test_a_job_that_has_ended_cannot_be_cancelled(store: DrivenStore) -> None:
    claimed = store.running()
    store.end(success(claimed))

    assert store.wait(store.services.cancel(TENANT, [claimed.id])) == set()
    assert store.job(claimed.id).state is State.SUCCEEDED


def test_cancels_and_finishes_at_once_end_each_job_once(store: DrivenStore) -> None:
    claimed = [store.running() for _ in range(30)]
    cancels = [store.begin(store.services.cancel(TENANT, [one.id])) for one in claimed]

    recorded = {job_id for one in claimed for job_id in store.end(success(one))}

    cancelled = {job_id for cancel in cancels for job_id in cancel.result(60)}
    assert recorded.isdisjoint(cancelled)
    assert recorded | cancelled == {one.id for one in claimed}
    assert store.rows("SELECT count(*) FROM attempts") == [(30,)]


def test_nobody_cancels_or_replays_the_jobs_of_another_tenant(store: DrivenStore) -> None:
    live, dead = a_job(), a_job()
    store.accepted(live)
    store.end(death(store.running(dead)))

    assert store.wait(store.services.cancel("umbrella", ids([live, dead]))) == set()
    assert store.wait(store.services.replay("umbrella", ids([live, dead]))) == []


def test_a_replayed_job_starts_a_new_series_with_a_clean_slate(store: DrivenStore) -> None:
    job = a_job()
    store.end(retry(store.running(job), crashed=1))
    store.wait(store.services.release_due(10))
    store.end(death(store.started(job)))

    (release,) = store.wait(store.services.replay(TENANT, [job.id]))
    claimed = store.started(job, series=1)

    assert (release.envelope.id, release.envelope.series) == (job.id, 1)
    assert (claimed.attempt, claimed.failures, claimed.crashes, claimed.suspect) == (3, 0, 0, False)
    assert len(store.ends(job.id)) == 3


def test_a_replayed_job_has_an_outbox_row_and_its_letter_is_marked(store: DrivenStore) -> None:
    job = a_job()
    store.end(death(store.running(job)))
    store.rows("DELETE FROM outbox")

    (release,) = store.wait(store.services.replay(TENANT, [job.id]))

    assert store.rows("SELECT id, job_ids FROM outbox") == [(release.outbox_id, [job.id])]
    (letter,) = store.wait(store.services.letters(LetterFilter(tenant=TENANT, replayed=True), 10))
    assert letter.replayed_at is not None


@pytest.mark.parametrize("state", [State.QUEUED, State.SUCCEEDED, State.CANCELLED])
def test_only_dead_jobs_are_replayed(store: DrivenStore, state: State) -> None:
    job = a_job()
    store.accepted(job)
    if state is State.SUCCEEDED:
        store.end(success(store.started(job)))
    elif state is State.CANCELLED:
        store.wait(store.services.cancel(TENANT, [job.id]))

    assert store.wait(store.services.replay(TENANT, [job.id])) == []
    assert store.job(job.id).state is state


def test_replays_at_once_start_one_series(store: DrivenStore) -> None:
    job = a_job()
    store.end(death(store.running(job)))

    replays = [store.begin(store.services.replay(TENANT, [job.id])) for _ in range(10)]

    assert sum(len(replay.result(60)) for replay in replays) == 1
    assert store.job(job.id).series == 1


def test_a_raw_dead_letter_is_marked_once(store: DrivenStore) -> None:
    message = BuriedMessage(reason=Reason.UNSIGNED, queue="jobs.default.dead", detail="", headers="{}", raw=b"x")
    store.wait(store.services.bury([message]))
    (letter,) = store.wait(store.services.letters(LetterFilter(tenant=None, replayed=False), 10))

    assert store.wait(store.services.mark_replayed(letter.id))
    assert not store.wait(store.services.mark_replayed(letter.id))


def test_what_was_done_is_on_record(store: DrivenStore) -> None:
    entry = AuditEntry(tenant=TENANT, actor="key-1", action="cancel", target="job-1", detail="why")

    store.wait(store.services.audit(entry))

    row = store.rows("SELECT tenant, actor, action, target, detail FROM audit")
    assert row == [(TENANT, "key-1", "cancel", "job-1", "why")]


def test_an_api_key_is_kept_as_it_was_made(store: DrivenStore) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    key, _ = new_key(TENANT, [Scope.READ, Scope.WRITE], name="shop", expires_at=expires_at)

    store.wait(store.services.add_key(key))

    kept = store.wait(store.services.key(key.id))
    assert kept is not None
    assert (kept.id, kept.tenant, kept.name, kept.secret_sha256) == (key.id, TENANT, "shop", key.secret_sha256)
    assert (kept.scopes, kept.expires_at, kept.revoked_at) == (key.scopes, expires_at, None)
    assert store.wait(store.services.keys()) == [kept]


def test_an_api_key_is_revoked_once(store: DrivenStore) -> None:
    key, _ = new_key(TENANT, [Scope.READ])
    store.wait(store.services.add_key(key))

    assert store.wait(store.services.revoke_key(key.id))
    assert not store.wait(store.services.revoke_key(key.id))
    kept = store.wait(store.services.key(key.id))
    assert kept is not None
    assert kept.revoked_at is not None


def test_an_unknown_api_key_is_none(store: DrivenStore) -> None:
    assert store.wait(store.services.key("nobody")) is None
    assert not store.wait(store.services.revoke_key("nobody"))


def test_an_api_key_cannot_be_added_twice(store: DrivenStore) -> None:
    key, _ = new_key(TENANT, [Scope.READ])
    store.wait(store.services.add_key(key))

    with pytest.raises(InvalidInput):
        store.wait(store.services.add_key(key))
