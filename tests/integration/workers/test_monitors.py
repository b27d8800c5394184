"""What Celery's monitors see of a worker: its jobs under their ids, while somebody watches, and no way to change it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from celery import Celery

from taskplatform.servers import RabbitMQ
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.slow

_MANY = 200

News = dict[str, Any]


class Onlooker:
    """A monitor that takes down every event, and asks for those of jobs when it is told to."""

    def __init__(self, url: str) -> None:
        self.app = Celery("monitor", broker=url, set_as_current=False)
        self.heard: list[News] = []
        self._receiver: Any = None
        self._there = Event()

    def ask(self) -> bool:
        """Ask for events, and tell whether a worker has answered."""
        return bool(self.app.control.enable_events(reply=True, timeout=0.5))

    def of(self, job_id: object) -> list[str]:
        return [event["type"] for event in self.heard if event.get("uuid") == str(job_id)]

    def saw(self, kind: str) -> list[News]:
        return [event for event in self.heard if event["type"] == kind]

    def listen(self) -> None:
        with self.app.connection_for_read() as connection:
            self._receiver = self.app.events.Receiver(connection, handlers={"*": self.heard.append})
            self._there.set()
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def leave(self) -> None:
        if self._there.wait(30.0):
            self._receiver.should_stop = True


@pytest.fixture(params=["amqp_bench", "redis_bench"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A bench on either broker."""
    found: Bench = request.getfixturevalue(request.param)
    return found


@contextmanager
def onlooker(bench: Bench) -> Iterator[Onlooker]:
    found = Onlooker(bench.broker_url)
    thread = Thread(target=found.listen, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.leave()
        thread.join()


@pytest.mark.parametrize("kind", ["prefork", "async"])
def test_a_monitor_follows_jobs_by_their_ids(bench: Bench, kind: str) -> None:
    bench.worker(worker_kind=kind)
    with onlooker(bench) as monitor:
        eventually(monitor.ask)
        done, failed, again = bench.submit("noop", 7), bench.submit("hopeless"), bench.submit("later", max_attempts=5)

        eventually(lambda: monitor.of(done)[-1:] == ["task-succeeded"])
        eventually(lambda: monitor.of(failed)[-1:] == ["task-failed"])
        eventually(lambda: monitor.of(again)[-1:] == ["task-retried"])
        eventually(lambda: any(beat["processed"] >= 3 for beat in monitor.saw("worker-heartbeat")))

    received = next(event for event in monitor.saw("task-received") if event["uuid"] == str(done))
    assert monitor.of(done) == ["task-received", "task-started", "task-succeeded"]
    assert (received["name"], received["args"], received["hostname"]) == ("noop", "[7]", *bench.leases())


def test_who_comes_late_is_told_of_the_jobs_that_run(redis_bench: Bench, tmp_path: Path) -> None:
    bench, marker = redis_bench, tmp_path / "marker"
    bench.worker()
    job = bench.submit("wait_for", str(marker))
    bench.reached(job, "running")
    with onlooker(bench) as monitor:
        eventually(lambda: monitor.ask() and monitor.of(job))
        (active,) = (monitor.app.control.inspect(timeout=5.0, limit=1).active() or {"": []}).values()
        marker.touch()
        eventually(lambda: monitor.of(job)[-1:] == ["task-succeeded"])

    assert monitor.of(job)[:2] == ["task-received", "task-started"]
    assert [(one["id"], one["name"]) for one in active] == [(str(job), "wait_for")]


def test_nothing_is_told_until_somebody_asks(amqp_bench: Bench) -> None:
    bench = amqp_bench
    bench.worker()
    with onlooker(bench) as monitor:
        eventually(lambda: monitor.app.control.ping(timeout=0.5))
        unseen = bench.submit("noop")
        bench.ended(unseen)
        eventually(monitor.ask)
        seen = bench.submit("noop")

        eventually(lambda: monitor.of(seen)[-1:] == ["task-succeeded"])

    assert monitor.of(unseen) == []
    assert monitor.heard[0]["type"] == "worker-online"


def test_nobody_changes_a_worker_from_outside(redis_bench: Bench) -> None:
    redis_bench.worker()
    control = Celery("monitor", broker=redis_bench.broker_url, set_as_current=False).control
    eventually(lambda: control.ping(timeout=0.5))

    commands = ("shutdown", "pool_shrink", "pool_grow", "rate_limit", "revoke", "add_consumer")
    answers = [control.broadcast(command, reply=True, timeout=5.0, limit=1) for command in commands]

    assert [list(said) for answer in answers for one in answer or [{}] for said in one.values()] == [["error"]] * 6
    assert redis_bench.ended(redis_bench.submit("noop"))["state"] == "succeeded"


def test_a_broker_that_holds_up_publishers_holds_up_no_job(
    amqp_bench: Bench, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    bench, marker = amqp_bench, tmp_path / "marker"
    bench.worker(worker_processes=1, claim_window_jobs=8)
    with onlooker(bench) as monitor:
        eventually(monitor.ask)
        first = bench.submit("wait_for", str(marker))
        eventually(lambda: monitor.of(first))
        # More than a worker is given before it acknowledges: over a connection that published, nothing of that is read.
        bench.submit_many([("noop", [])] * _MANY)

        rabbitmq.set_memory_alarm(on=True)
        try:
            marker.touch()

            bench.all_succeed(1 + _MANY, within_seconds=30)
        finally:
            rabbitmq.set_memory_alarm(on=False)
