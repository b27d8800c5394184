"""A Hypothesis machine of callers who write and read over a standby that lags, each against what it knows itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from taskplatform.freshness import LATEST, START, Position
from taskplatform.job import Job, NewJob, State
from taskplatform.lookups import Lookups
from taskplatform.store.contract import JobFilter
from taskplatform.store.working import Claimed, Ending
from tests.fixtures.replica import Standby
from tests.fixtures.store import TENANT, DrivenStore, a_job, death, retry, success

CALLERS = (0, 1, 2)
CALLER = st.sampled_from(CALLERS)
PLACES = st.integers(min_value=0, max_value=99)
_ENDINGS: Mapping[str, Callable[[Claimed], Ending]] = {"succeed": success, "die": death, "fail": retry}
_NEXT = {"start": State.QUEUED, "succeed": State.RUNNING, "die": State.RUNNING, "fail": State.RUNNING}


class ReaderMachine(RuleBasedStateMachine):
    """Every caller has a process of its own to talk to, so that its token holds no more than what it did itself."""

    world: ClassVar[DrivenStore]
    processes: ClassVar[list[DrivenStore]]
    lookups: ClassVar[list[Lookups]]
    standby: ClassVar[Standby]

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[NewJob] = []
        self.next = a_job()
        self.history: dict[UUID, list[str]] = {}
        self.known: list[dict[UUID, int]] = [{} for _ in CALLERS]
        self.tokens: list[Position] = [START for _ in CALLERS]
        self.paused = False

    def teardown(self) -> None:
        self.standby.resume()
        # Deleted and not truncated: that would lock the tables of the standby for as long as its replay is held up.
        for table in ("jobs", "finished_jobs", "attempts", "outbox", "dead_letters"):
            self.world.rows(f"DELETE FROM {table}")

    @initialize()
    def begin(self) -> None:
        for caller in CALLERS:
            self.submit(caller)
        self.work(0, "start")
        self.work(0, "die")
        self.go_on(catch_up=True)

    @rule(caller=CALLER)
    def submit(self, caller: int) -> None:
        job, self.next = self.next, a_job()
        self.processes[caller].accepted(job)
        self.jobs.append(job)
        self.history[job.id] = []
        self._wrote(caller, job)

    @precondition(lambda self: self.jobs)
    @rule(place=PLACES, what=st.sampled_from(["start", "start", "succeed", "die", "fail"]))
    def work(self, place: int, what: str) -> None:
        job = self.jobs[place % len(self.jobs)]
        now = self.world.job(job.id)
        if now.state is not _NEXT[what]:
            return
        if what == "start":
            self.world.started(job, series=now.series, token=f"{job.id}-{now.attempt}")
        else:
            claimed = self.world.started(job, series=now.series, token=f"{job.id}-{now.attempt - 1}")
            self.world.end(_ENDINGS[what](claimed))
        self._happened(job)

    @precondition(lambda self: self.jobs)
    @rule()
    def release(self) -> None:
        self.world.wait(self.world.services.release_due(100))
        for job in self.jobs:
            self._happened(job)

    @precondition(lambda self: self.jobs)
    @rule(caller=CALLER, place=PLACES, what=st.sampled_from(["cancel", "replay"]))
    def operate(self, caller: int, place: int, what: str) -> None:
        dead = [job for job in self.jobs if self.history[job.id][-1].endswith(State.DEAD)]
        choice = dead if what == "replay" and dead else self.jobs
        job = choice[place % len(choice)]
        services = self.processes[caller].services
        changed = self.world.wait(
            services.cancel(TENANT, [job.id]) if what == "cancel" else services.replay(TENANT, [job.id])
        )
        if changed:
            self._wrote(caller, job)

    @rule()
    def hold_up(self) -> None:
        self.standby.pause()

    @rule(catch_up=st.booleans())
    def go_on(self, catch_up: bool) -> None:
        self.standby.resume()
        if catch_up:
            self.standby.catch_up()

    @precondition(lambda self: self.jobs)
    @rule(caller=CALLER, place=PLACES, says=st.sampled_from([True, True, True, False]))
    def look(self, caller: int, place: int, says: bool) -> None:
        job = self.jobs[place % len(self.jobs)]
        found = self._look(caller, job, says=says)
        if job.id in self.known[caller] or found is not None:
            assert found is not None, "a job that the caller knows is missing"
            self._saw(caller, found)

    @rule(caller=CALLER, says=st.booleans())
    def look_ahead(self, caller: int, says: bool) -> None:
        assert self._look(caller, self.next, says=says) is None
        self._saw_up_to(caller)

    @precondition(lambda self: self.jobs)
    @rule(caller=CALLER, says=st.booleans())
    def list(self, caller: int, says: bool) -> None:
        store = self.processes[caller]
        wanted = JobFilter(tenant=TENANT)
        found = store.wait(store.services.search(wanted, 1000, self._seen(caller, says=says)))
        missing = self.known[caller].keys() - {job.id for job in found}
        assert not missing, "jobs that the caller knows are missing in its list"
        for job in found:
            self._saw(caller, job)

    @precondition(lambda self: self.jobs)
    @rule(caller=CALLER, place=PLACES)
    def list_attempts(self, caller: int, place: int) -> None:
        job = self.jobs[place % len(self.jobs)]
        store = self.processes[caller]
        found = store.wait(store.services.attempts(job.id, self._seen(caller, says=True)))
        known = self.history[job.id][: self.known[caller].get(job.id, -1) + 1]
        assert len(found) >= max((int(version.split("-")[1]) for version in known), default=0)
        self._saw_up_to(caller)

    def _look(self, caller: int, job: NewJob, *, says: bool) -> Job | None:
        return self.world.wait(self.lookups[caller].one(TENANT, job.id, self._seen(caller, says=says)))

    def _seen(self, caller: int, *, says: bool) -> Position:
        return self.tokens[caller] if says else LATEST

    def _wrote(self, caller: int, job: NewJob) -> None:
        self._happened(job)
        self.known[caller][job.id] = len(self.history[job.id]) - 1
        self._saw_up_to(caller)

    def _saw(self, caller: int, job: Job) -> None:
        place = self.history[job.id].index(job.version)
        known = self.known[caller].get(job.id, -1)
        assert place >= known, f"{job.version} was shown to a caller who knows {self.history[job.id][known]}"
        self.known[caller][job.id] = place
        self._saw_up_to(caller)

    def _saw_up_to(self, caller: int) -> None:
        self.tokens[caller] = self.tokens[caller].joined(self.processes[caller].services.position or START)

    def _happened(self, job: NewJob) -> None:
        version = self.world.job(job.id).version
        if not self.history[job.id] or self.history[job.id][-1] != version:
            self.history[job.id].append(version)
