"""What a worker tells Celery's monitors, and what it keeps to itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from taskplatform.job import AttemptEnd, Envelope, State
from taskplatform.store.working import Claimed, Ended
from workers.events import WATCHED_SECONDS, Events


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Worker:
    """A worker as its events see it."""

    clock: Clock = field(default_factory=Clock)
    known: dict[UUID, Envelope] = field(default_factory=dict)
    jobs_per_second: float = 1000.0
    show_arguments: bool = True

    def __post_init__(self) -> None:
        self.events = Events(self.jobs_per_second, show_arguments=self.show_arguments, clock=self.clock)

    def claim(self, jobs: int, body: str = '[["secret"],{"to":1},{}]') -> list[UUID]:
        ids = [uuid4() for _ in range(jobs)]
        for job_id in ids:
            self.known[job_id] = Envelope(id=job_id, task="shop.ship", body=body, tenant="acme", pool="default")
        claims = [Claimed(id=job_id, attempt=1, failures=0, crashes=0, max_attempts=3, suspect=False) for job_id in ids]
        self.events.turned([], [(self.known[claim.id], claim) for claim in claims])
        return ids

    def end(self, ids: Sequence[UUID], state: State = State.SUCCEEDED) -> None:
        end = AttemptEnd.SUCCEEDED if state is State.SUCCEEDED else AttemptEnd.FAILED
        endings = [
            Ended(id=job_id, attempt=1, state=state, end=end, started=1.0, stopped=3.5, result='"secret"', error="{}")
            for job_id in ids
        ]
        self.events.turned([(self.known[ending.id], ending) for ending in endings], [])

    def told(self) -> list[str]:
        return [event["type"] for event in self.events.take(10_000)]


def test_nothing_is_kept_while_nobody_watches() -> None:
    worker = Worker()

    worker.end(worker.claim(3))

    assert worker.told() == []
    assert worker.events.processed == 3


def test_a_job_is_told_of_from_its_claim_to_its_end() -> None:
    worker = Worker()
    worker.events.watch()

    worker.end(worker.claim(1))
    received, succeeded = worker.events.take(10)

    assert (received["name"], received["args"], received["kwargs"]) == ("shop.ship", "['secret']", "{'to': 1}")
    assert (succeeded["uuid"], succeeded["runtime"], succeeded["timestamp"]) == (received["uuid"], 2.5, 3.5)


def test_nothing_is_told_when_nobody_has_asked_for_a_while() -> None:
    worker = Worker()
    worker.events.watch()
    (job,) = worker.claim(1)

    worker.clock.now += WATCHED_SECONDS + 1
    worker.events.rest()
    worker.end([job])

    assert (worker.events.on, worker.told()) == (False, [])


def test_of_many_jobs_a_sample_is_told_and_each_of_it_whole() -> None:
    worker = Worker(jobs_per_second=5.0)
    worker.events.watch()

    for _ in range(10):
        worker.end(worker.claim(100))
    told = worker.told()

    assert 0 < told.count("task-received") <= 20
    assert told.count("task-received") == told.count("task-succeeded")


def test_failures_are_told_when_there_are_too_many_jobs_too() -> None:
    worker = Worker(jobs_per_second=5.0)
    worker.events.watch()
    worker.end(worker.claim(100))
    worker.told()

    worker.end(worker.claim(1), State.DEAD)
    received, failed = worker.events.take(10)

    assert (received["type"], received["name"], failed["type"]) == ("task-received", "shop.ship", "task-failed")
    assert failed["uuid"] == received["uuid"]


def test_arguments_and_results_are_kept_back_where_they_are_not_to_be_shown() -> None:
    worker = Worker(show_arguments=False)
    worker.events.watch()

    worker.end(worker.claim(1))

    assert "secret" not in str(worker.events.take(10))


def test_a_large_body_is_not_read_for_it() -> None:
    worker = Worker()
    worker.events.watch()

    worker.claim(1, body=f'[["{"x" * 20_000}"],{{}},{{}}]')
    (received,) = worker.events.take(10)

    assert received["args"] == "(20012 characters)"
