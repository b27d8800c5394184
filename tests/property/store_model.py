"""What the store should hold, as plain values: the same decisions, one job at a time, without SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from taskplatform.job import AttemptEnd, NewJob, State

WAITING = frozenset({State.SCHEDULED, State.BLOCKED, State.QUEUED, State.RETRYING})


@dataclass
class ModelJob:
    """One job."""

    new: NewJob
    state: State
    late: bool
    series: int = 0
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    suspect: bool = False
    worker: str | None = None
    token: str | None = None
    history: list[tuple[int, AttemptEnd]] = field(default_factory=list)
    letters: int = 0

    @property
    def live(self) -> bool:
        """Whether it may still change without a replay."""
        return self.state in WAITING or self.state is State.RUNNING

    def claim(self, worker: str, token: str, series: int) -> bool:
        """Start an attempt; the same claim again gives the same one."""
        if series != self.series:
            return False
        if self.state is State.RUNNING:
            return (self.worker, self.token) == (worker, token)
        if self.state is not State.QUEUED or self.late:
            return False
        self.state, self.worker, self.token = State.RUNNING, worker, token
        self.attempt += 1
        return True

    def holds(self, attempt: int) -> bool:
        """Whether that attempt may record anything."""
        return self.state is State.RUNNING and self.attempt == attempt

    def leave(self, state: State, end: AttemptEnd) -> None:
        """End the running attempt."""
        self.history.append((self.attempt, end))
        self.state = state
        self.letters += state is State.DEAD

    def put_off(self, end: AttemptEnd, *, failed: int = 0, crashed: int = 0) -> None:
        """End the running attempt with a charge, and wait."""
        self.failures += failed
        self.crashes += crashed
        self.suspect = self.crashes > 0
        self.leave(State.RETRYING, end)

    def end(self, how: str) -> None:
        """End the running attempt as its worker says."""
        match how:
            case "succeed":
                self.leave(State.SUCCEEDED, AttemptEnd.SUCCEEDED)
            case "die":
                self.failures += 1
                self.leave(State.DEAD, AttemptEnd.FAILED)
            case "fail":
                self.put_off(AttemptEnd.FAILED, failed=1)
            case "crash":
                self.put_off(AttemptEnd.CRASHED, crashed=1)
            case _:
                self.leave(State.RETRYING, AttemptEnd.RELEASED)

    def rescue(self, crash_limit: int) -> None:
        """Its worker vanished: a suspect is charged, any other becomes one."""
        if not self.suspect:
            self.suspect = True
            self.leave(State.RETRYING, AttemptEnd.LOST)
            return
        self.crashes += 1
        self.leave(State.DEAD if self.crashes >= crash_limit else State.RETRYING, AttemptEnd.CRASHED)

    def replay(self) -> None:
        """Start a new series with a clean slate."""
        self.state, self.late, self.suspect = State.QUEUED, False, False
        self.series += 1
        self.failures = self.crashes = 0


@dataclass
class Model:
    """All jobs, keys and outbox rows."""

    jobs: dict[UUID, ModelJob] = field(default_factory=dict)
    keys: dict[str, UUID] = field(default_factory=dict)
    outbox: dict[int, set[UUID]] = field(default_factory=dict)

    def in_state(self, *states: State) -> set[UUID]:
        """The jobs in one of these states."""
        return {job_id for job_id, job in self.jobs.items() if job.state in states}

    def queue(self, releases: dict[UUID, int | None]) -> None:
        """Note that these jobs were queued with those outbox rows."""
        for job_id, row in releases.items():
            assert row is not None
            self.jobs[job_id].state = State.QUEUED
            self.outbox.setdefault(row, set()).add(job_id)
