"""What a trial does to the platform, and what it looks at afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.containers.trial.fleet import Fleet, exit_statuses, follow
from tests.containers.trial.ledger import Effect, Evidence, Ledger, judge
from tests.containers.trial.load import Load, Submission, steady
from tests.containers.trial.stack import MOST_WORKERS, WORKERS, Stack
from tests.fixtures.waiting import eventually

JOBS = 2_000
_LATE_JOBS = 35
_BURST_SECONDS = 20.0
_GROW_SECONDS = 120.0
_DRAIN_SECONDS = 300.0
_HOST_NAME_LENGTH = 12


@dataclass
class Story:
    """One run on a stack that is up; `killed` are the containers that were killed on purpose."""

    stack: Stack
    key: str
    killed: list[str] = field(default_factory=list)

    def scale(self) -> tuple[Load, Fleet]:
        """Hand in all jobs, kill a worker and an API process, wait for the end; gives the load and the fleet."""
        load = Load(port=self.stack.port, key=self.key, again=True)
        first = self.stack.containers(WORKERS)
        with self.stack.events_noted(WORKERS):
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
            eventually(lambda: follow(first, self.stack.events()).sizes[-1] == 1, _DRAIN_SECONDS)
        return load, follow(first, self.stack.events())

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
        """Give how the workers ended but for the kills."""
        return exit_statuses(self.stack.events(), self.killed)

    def _kill(self, service: str) -> None:
        victim = self.stack.containers(service)[-1]
        self.stack.engine.docker("kill", victim)
        self.killed.append(victim)

    def _ended(self) -> int:
        return int(self.stack.rows("SELECT count(*) FROM finished_jobs")[0][0])


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
