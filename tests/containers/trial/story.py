"""What a trial does to the platform, and what it looks at afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.containers.trial.ledger import Effect, Evidence, Ledger, judge
from tests.containers.trial.load import Load, Submission, steady
from tests.containers.trial.stack import MOST_WORKERS, WORKERS, Stack
from tests.fixtures.waiting import eventually

JOBS = 2_000
_LATE_JOBS = 35
_BURST_SECONDS = 20.0
_GROW_SECONDS = 120.0
_DRAIN_SECONDS = 300.0
_WATCH_SECONDS = 0.5
_HOST_NAME_LENGTH = 12


@dataclass
class Story:
    """One run on a stack that is up; `killed` are the containers that were killed on purpose."""

    stack: Stack
    key: str
    killed: list[str] = field(default_factory=list)

    def scale(self) -> tuple[Load, list[int]]:
        """Hand in all jobs, kill a worker and an API process, wait for the end; gives load and sizes of the fleet."""
        load = Load(port=self.stack.port, key=self.key, again=True)
        with self.stack.ends_noted(WORKERS), self._watched_fleet() as sizes:
            burst = threading.Thread(target=load.submit, args=(_burst(),))
            burst.start()
            eventually(lambda: len(load.jobs) > JOBS // 4, _GROW_SECONDS)
            self._kill("api-2")
            eventually(lambda: len(self.stack.containers(WORKERS)) >= MOST_WORKERS, _GROW_SECONDS)
            self._kill(WORKERS)
            burst.join()
            self.stack.compose("start", "api-2")
            # The last jobs are long, and come slower and slower, so that the fleet shrinks while workers are busy.
            eventually(lambda: self._ended() > len(load.jobs) - 50, _DRAIN_SECONDS)
            load.submit(_late())
            eventually(lambda: self._ended() == len(load.jobs), _DRAIN_SECONDS)
            eventually(lambda: len(self.stack.containers(WORKERS)) == 1, _DRAIN_SECONDS)
        return load, sizes

    def roll(self) -> Load:
        """Replace everything under a steady load; gives that load."""
        before, over = self._ended(), threading.Event()
        load = Load(port=self.stack.port, key=self.key, again=False)
        with load.running(steady(JOBS, 6.0, 0.5, over), over):
            eventually(lambda: len(self.stack.containers(WORKERS)) > 1, _GROW_SECONDS)
            self.stack.roll()
            reached = len(load.jobs)
            eventually(lambda: len(load.jobs) > reached + 20, _GROW_SECONDS)
        eventually(lambda: self._ended() == before + len(load.jobs), _DRAIN_SECONDS)
        return load

    def ledger(self, load: Load) -> Ledger:
        """Compare all sides of what a load handed in."""
        states = self.stack.rows("SELECT id, state FROM jobs UNION ALL SELECT id, state FROM finished_jobs")
        attempts = self.stack.rows("SELECT job_id, number, ended FROM attempts")
        evidence = Evidence(
            answered=load.jobs,
            states={row[0]: row[1] for row in states},
            attempts=[(job, int(number), ended) for job, number, ended in attempts],
            effects=[
                Effect(**json.loads(line))
                for path in sorted(self.stack.effects.glob("*.jsonl"))
                for line in path.read_text().splitlines()
            ],
        )
        return judge(evidence, {container[:_HOST_NAME_LENGTH] for container in self.killed})

    def exit_statuses(self) -> list[int]:
        """Give how the workers ended but for the kills; a container that was killed may have been started again."""
        kills, statuses = set(self.killed), []
        for container, status in self.stack.ends():
            if container in kills:
                kills.remove(container)
            else:
                statuses.append(status)
        return statuses

    def _kill(self, service: str) -> None:
        victim = self.stack.containers(service)[-1]
        self.stack.engine.docker("kill", victim)
        self.killed.append(victim)

    def _ended(self) -> int:
        return int(self.stack.rows("SELECT count(*) FROM finished_jobs")[0][0])

    @contextmanager
    def _watched_fleet(self) -> Iterator[list[int]]:
        """Note every change of how many workers there are."""
        seen: list[int] = []
        over = threading.Event()

        def note() -> None:
            if (size := len(self.stack.containers(WORKERS))) not in seen[-1:]:
                seen.append(size)

        def watch() -> None:
            while not over.wait(_WATCH_SECONDS):
                note()

        note()
        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()
            note()


def _burst() -> Iterator[Submission]:
    many = JOBS - _LATE_JOBS
    for number in range(many):
        seconds = 0.1 + number % 5 * 0.1
        yield Submission(due_seconds=_BURST_SECONDS * number / many, number=number, job_seconds=seconds)


def _late() -> Iterator[Submission]:
    due = 0.0
    for index in range(_LATE_JOBS):
        due += 1.0 if index < _LATE_JOBS // 2 else 2.0
        yield Submission(due_seconds=due, number=JOBS - _LATE_JOBS + index, job_seconds=5.0)
