"""A Hypothesis machine that drives a store and a plain model through the same calls, and compares what they hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar
from uuid import UUID

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskplatform.job import LIVE, AttemptEnd, Priority, Reason, State
from taskplatform.store.contract import Accepted, BuriedMessage, KeyTaken, Release, Replayed
from taskplatform.store.working import Claimed, ClaimRequest
from tests.fixtures.store import TENANT, DrivenStore, a_job, a_lease, death, give_back, retry, success
from tests.property.store_model import WAITING, Model, ModelJob

WORKERS = ("worker-1", "worker-2")
PLACES = st.integers(min_value=0, max_value=99)
SELDOM = st.sampled_from([False, False, False, True])
_TABLES = ("jobs", "finished_jobs", "attempts", "outbox", "idempotency_keys", "dead_letters")
_LONG_AGO = datetime.now(UTC) - timedelta(days=1)

Claim = tuple[Claimed, ClaimRequest]


class StoreMachine(RuleBasedStateMachine):
    """Whatever callers, workers, dispatchers and operators do, in any order."""

    store: ClassVar[DrivenStore]
    link: ClassVar[psycopg.Connection]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.claims: list[Claim] = []
        self.tokens = count()
        for worker in WORKERS:
            self.store.work.renew(a_lease(worker))

    @initialize()
    def begin(self) -> None:
        for gate in ("none", "none", "none", "time", "room"):
            self.accept(gate, None, "x")
        for worker in ("worker-1", "worker-1", "worker-2"):
            self.claim(0, stray=False, worker=worker, off=0)
        self.vanish("worker-1", crash_limit=2)
        self.release()
        self.claim(0, stray=False, worker="worker-2", off=0)

    @rule(
        gate=st.sampled_from(["none", "none", "time", "room", "late"]),
        key=st.sampled_from([None, None, "a", "b"]),
        fingerprint=st.sampled_from(["x", "y"]),
    )
    def accept(self, gate: str, key: str | None, fingerprint: str) -> None:
        job = a_job(**_GATES[gate], key=key, fingerprint=fingerprint if key else None)
        (answer,) = self.store.accept(job)
        if key is not None and key in self.model.keys:
            first = self.model.jobs[self.model.keys[key]].new
            assert answer == (Replayed if first.fingerprint == fingerprint else KeyTaken)(id=first.id)
            return
        assert isinstance(answer, Accepted)
        self.model.jobs[job.id] = ModelJob(new=job, state=job.state, late=gate == "late")
        if key is not None:
            self.model.keys[key] = job.id
        if job.state is State.QUEUED:
            self.model.queue({job.id: answer.outbox_id})

    @precondition(lambda self: self.model.jobs)
    @rule(place=PLACES)
    def accept_again(self, place: int) -> None:
        job = self._pick(place, stray=True)
        answer = self.store.accepted(job.new)
        assert answer.outbox_id is None

    @precondition(lambda self: self.model.jobs)
    @rule(place=PLACES, stray=SELDOM, worker=st.sampled_from(WORKERS), off=st.sampled_from([0, 0, 0, 1]))
    def claim(self, place: int, stray: bool, worker: str, off: int) -> None:
        job = self._pick(place, State.QUEUED, stray=stray)
        wanted = [(job.new.id, job.series + off)]
        self._claim(ClaimRequest(worker=worker, token=f"token-{next(self.tokens)}", wanted=wanted))

    @precondition(lambda self: self.claims)
    @rule(place=PLACES)
    def claim_again(self, place: int) -> None:
        self._claim(self.claims[place % len(self.claims)][1])

    @precondition(lambda self: self.claims)
    @rule(place=PLACES, stray=SELDOM, how=st.sampled_from(["succeed", "die", "fail", "crash", "give back"]))
    def end(self, place: int, stray: bool, how: str) -> None:
        fitting = [claimed for claimed, _ in self.claims if self.model.jobs[claimed.id].holds(claimed.attempt) != stray]
        choice = fitting or [claimed for claimed, _ in self.claims]
        claimed = choice[place % len(choice)]
        job = self.model.jobs[claimed.id]
        expected = {claimed.id} if job.holds(claimed.attempt) else set()
        assert self.store.end(_ENDINGS[how](claimed)) == expected
        if expected:
            job.end(how)

    @precondition(lambda self: self.model.in_state(State.RUNNING))
    @rule(worker=st.sampled_from(WORKERS), crash_limit=st.integers(min_value=1, max_value=2))
    def vanish(self, worker: str, crash_limit: int) -> None:
        rescued = self.store.vanish(worker, crash_limit=crash_limit)
        self.store.work.renew(a_lease(worker))
        held = [job for job in self.model.jobs.values() if job.state is State.RUNNING and job.worker == worker]
        for job in held:
            job.rescue(crash_limit)
        assert rescued == {job.new.id: job.state for job in held}

    @precondition(lambda self: self.model.in_state(State.SCHEDULED, State.RETRYING, State.BLOCKED))
    @rule()
    def release(self) -> None:
        due = self.model.in_state(State.SCHEDULED, State.RETRYING)
        self._queued(self.store.wait(self.store.services.release_due(1000)), due)
        held = self.model.in_state(State.BLOCKED)
        call = self.store.services.release_blocked("default", Priority.NORMAL, 1000)
        self._queued(self.store.wait(call), held)

    @precondition(lambda self: self.model.in_state(*LIVE))
    @rule(place=PLACES)
    def let_the_deadline_pass(self, place: int) -> None:
        job = self._pick(place, State.RUNNING)
        if job.live:
            job.late = True
            self.link.execute("UPDATE jobs SET expires_at = %s WHERE id = %s", [_LONG_AGO, job.new.id])

    @precondition(lambda self: any(job.late and job.live for job in self.model.jobs.values()))
    @rule()
    def expire(self) -> None:
        late = [job for job in self.model.jobs.values() if job.late and job.state in WAITING]
        for job in late:
            job.state = State.EXPIRED
        assert self.store.wait(self.store.services.expire(1000)) == len(late)

    @precondition(lambda self: self.model.jobs)
    @rule(place=PLACES, stray=SELDOM)
    def cancel(self, place: int, stray: bool) -> None:
        job = self._pick(place, *LIVE, stray=stray)
        expected = {job.new.id} if job.live else set()
        assert self.store.wait(self.store.services.cancel(TENANT, [job.new.id])) == expected
        if job.state is State.RUNNING:
            job.leave(State.CANCELLED, AttemptEnd.CANCELLED)
        elif expected:
            job.state = State.CANCELLED

    @precondition(lambda self: self.model.jobs)
    @rule(place=PLACES, stray=SELDOM)
    def replay(self, place: int, stray: bool) -> None:
        job = self._pick(place, State.DEAD, stray=stray)
        expected = {job.new.id} if job.state is State.DEAD else set()
        releases = self.store.wait(self.store.services.replay(TENANT, [job.new.id]))
        if expected:
            job.replay()
        self._queued(releases, expected)

    @precondition(lambda self: self.model.jobs)
    @rule(place=PLACES, off=st.sampled_from([0, 0, 1]))
    def bury(self, place: int, off: int) -> None:
        job = self._pick(place, State.QUEUED, State.RUNNING)
        message = BuriedMessage(
            reason=Reason.DELIVERY_LIMIT,
            queue="jobs.default.normal",
            detail="",
            headers="{}",
            raw=b"",
            tenant=TENANT,
            job_id=job.new.id,
            series=job.series + off,
        )
        self.store.wait(self.store.services.bury([message]))
        if job.state is State.QUEUED and off == 0:
            job.state = State.DEAD
            job.letters += 1

    @precondition(lambda self: self.model.outbox)
    @rule(confirms=st.booleans())
    def relay(self, confirms: bool) -> None:
        got: list[UUID] = []

        async def publish(releases: Sequence[Release]) -> Collection[UUID]:
            got.extend(release.envelope.id for release in releases)
            return got if confirms else []

        self.store.wait(self.store.services.relay(0, 1000, publish))
        queued = self.model.in_state(State.QUEUED)
        assert sorted(got) == sorted(job_id for ids in self.model.outbox.values() for job_id in ids & queued)
        kept = {} if confirms else {row: ids for row, ids in self.model.outbox.items() if ids & queued}
        self.model.outbox = kept

    @precondition(lambda self: self.model.outbox)
    @rule(place=PLACES)
    def settle(self, place: int) -> None:
        row = sorted(self.model.outbox)[place % len(self.model.outbox)]
        self.store.wait(self.store.services.settle_outbox([row]))
        del self.model.outbox[row]

    @invariant()
    def no_accepted_job_is_lost_and_each_is_where_it_should_be(self) -> None:
        columns = "id, state, series, attempt, failures, crashes"
        rows = self._rows(f"SELECT {columns}, suspect FROM jobs UNION ALL SELECT {columns}, NULL FROM finished_jobs")
        assert len(rows) == len(self.model.jobs)
        for job_id, state, series, attempt, failures, crashes, suspect in rows:
            job = self.model.jobs[job_id]
            assert (state, series, attempt) == (job.state, job.series, job.attempt)
            assert (failures, crashes) == (job.failures, job.crashes)
            assert suspect in (None, job.suspect)

    @invariant()
    def exactly_the_succeeded_jobs_have_a_result(self) -> None:
        rows = self._rows("SELECT id FROM finished_jobs WHERE result IS NOT NULL")
        assert {job_id for (job_id,) in rows} == self.model.in_state(State.SUCCEEDED)

    @invariant()
    def every_attempt_that_ended_is_recorded_once(self) -> None:
        recorded = self._rows("SELECT job_id, number, ended FROM attempts ORDER BY job_id, number")
        expected = [(job_id, *end) for job_id, job in sorted(self.model.jobs.items()) for end in job.history]
        assert recorded == expected

    @invariant()
    def every_death_has_a_dead_letter(self) -> None:
        rows = dict(self._rows("SELECT job_id, count(*) FROM dead_letters GROUP BY job_id"))
        assert rows == {job_id: job.letters for job_id, job in self.model.jobs.items() if job.letters}

    @invariant()
    def the_outbox_holds_what_nobody_settled(self) -> None:
        rows = self._rows("SELECT id, job_ids FROM outbox")
        assert {row: set(ids) for row, ids in rows} == self.model.outbox

    def teardown(self) -> None:
        """Leave an empty database to the next run."""
        with self.link.pipeline():
            for table in _TABLES:
                self.link.execute(f"DELETE FROM {table}".encode())

    def _pick(self, place: int, *states: State, stray: bool = False) -> ModelJob:
        fitting = [] if stray else [job for job in self.model.jobs.values() if job.state in states]
        choice = fitting or list(self.model.jobs.values())
        return choice[place % len(choice)]

    def _claim(self, request: ClaimRequest) -> None:
        _, claimed = self.store.work.turn([], request)
        ((job_id, series),) = request.wanted
        job = self.model.jobs[job_id]
        if not job.claim(request.worker, request.token, series):
            assert claimed == []
            return
        (got,) = claimed
        charges = (job.attempt, job.failures, job.crashes, job.suspect)
        assert (got.attempt, got.failures, got.crashes, got.suspect) == charges
        self.claims.append((got, request))

    def _queued(self, releases: Sequence[Release], expected: set[UUID]) -> None:
        assert {release.envelope.id for release in releases} == expected
        for release in releases:
            job = self.model.jobs[release.envelope.id]
            assert (release.envelope.series, release.envelope.suspect) == (job.series, job.suspect)
        self.model.queue({release.envelope.id: release.outbox_id for release in releases})

    def _rows(self, query: str) -> list[Any]:
        return self.link.execute(query.encode()).fetchall()


_GATES: dict[str, dict[str, Any]] = {
    "none": {},
    "time": {"state": State.SCHEDULED, "due_at": _LONG_AGO},
    "room": {"state": State.BLOCKED, "blocked_on": "queue_full"},
    "late": {"expires_at": _LONG_AGO},
}
_ENDINGS: dict[str, Callable[[Claimed], Any]] = {
    "succeed": success,
    "die": death,
    "fail": retry,
    "crash": lambda claimed: retry(claimed, crashed=1),
    "give back": give_back,
}
