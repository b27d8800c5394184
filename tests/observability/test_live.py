"""What is seen of a real platform while something is broken: figures move, alerts fire, and all of it clears."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from uuid import uuid4

import pytest
from kombu import Connection, Queue

from taskplatform.autoscale.contract import LEASE
from taskplatform.client import named
from taskplatform.job import Priority, State
from taskplatform.topology import work_queue, work_queues
from tests.fixtures.waiting import eventually
from tests.native.part import Part
from tests.observability.alertmanager import Heard
from tests.observability.conftest import Watched

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

JOBS = 20
HIDDEN = 4
"""Messages of jobs too young to be owed, canaries here, hide as many that are missing: the figure is a lower bound."""
FAILING = {"JobsBurnFast", "RetryStorm", "DeadLettersGrow", "ForgedMessages"}
LASTING = {"WaitsBurnFast", "WaitsBurnSlow", "JobsBurnSlow", "RequestsBurnSlow", "DeadLettersLeft"}
"""They look back over an hour and more, and so upon what a test before did to its jobs."""
UNACCOUNTED = 'sum(tp_jobs_unaccounted{lacks="message"})'


def _fire(watched: Watched, *names: str) -> None:
    eventually(lambda: watched.prometheus.firing() >= set(names) or None, within_seconds=60)


def _clear(watched: Watched, *names: str) -> None:
    eventually(lambda: watched.prometheus.firing().isdisjoint(names) or None, within_seconds=90)


def _run(watched: Watched, task: str, number: int) -> None:
    before = _ended(watched, task)
    watched.submit(task, number)
    eventually(lambda: _ended(watched, task) >= before + number, within_seconds=60)


def _ended(watched: Watched, task: str) -> int:
    return int(watched.rows("SELECT count(*) FROM finished_jobs WHERE task = %s", task)[0][0])


@contextmanager
def _stopped(*parts: Part) -> Iterator[None]:
    """Stop processes, and start them again whatever happens."""
    for part in parts:
        part.stop()
    try:
        yield
    finally:
        for part in parts:
            if not part.process.alive:
                part.start()
        for part in parts:
            part.await_ready()


def _purge(watched: Watched) -> int:
    """Empty the work queues behind everybody's back; gives how many messages went."""
    with Connection(watched.stack.home.broker_url) as connection:
        channel = connection.default_channel
        return sum(Queue(name, channel=channel).purge() or 0 for name in work_queues("default"))


def test_nothing_fires_and_nothing_is_unaccounted_for_while_all_is_well(watched: Watched) -> None:
    watched.submit("watched.quick", 50)

    eventually(lambda: watched.value("sum(tp_jobs_unaccounted)") == 0 or None, within_seconds=60)
    eventually(lambda: watched.prometheus.firing() <= LASTING, within_seconds=120)
    assert watched.prometheus.down() == []


def test_jobs_whose_queue_is_purged_are_missed_until_they_are_published_again(watched: Watched) -> None:
    before = _ended(watched, "watched.quick")
    worker, dispatcher = watched.stack.worker, watched.stack.dispatcher
    with _stopped(worker):
        with _stopped(dispatcher):
            watched.submit("watched.quick", JOBS)
            eventually(lambda: _purge(watched) >= JOBS, within_seconds=60)
            watched.rows("UPDATE jobs SET queued_at = now() - interval '10 minutes' WHERE task = 'watched.quick'")
            eventually(lambda: (watched.value(UNACCOUNTED) or 0) >= JOBS - HIDDEN, within_seconds=60)
            _fire(watched, "JobsUnaccounted", "NoConsumers", "OldestJobTooOld", "DispatcherDown", "TargetDown")

        # The dispatcher is back: it finds them, though no worker is there yet.
        _clear(watched, "JobsUnaccounted", "DispatcherDown")
        assert watched.value(UNACCOUNTED) == 0

    _clear(watched, "NoConsumers", "OldestJobTooOld", "TargetDown", "CanaryLost")
    eventually(lambda: _ended(watched, "watched.quick") == before + JOBS, within_seconds=60)


@pytest.mark.long
def test_what_nobody_releases_or_relays_is_seen_and_a_dispatcher_mends_it(watched: Watched) -> None:
    with _stopped(watched.stack.dispatcher):
        watched.submit("watched.quick", 1, delay_seconds=3600.0)
        watched.rows("UPDATE jobs SET due_at = now() - interval '5 minutes' WHERE state = 'scheduled'")
        watched.rows(
            "INSERT INTO outbox (created_at, job_ids) VALUES (now() - interval '5 minutes', ARRAY [gen_random_uuid()])"
        )
        _fire(watched, "DispatchLate", "OutboxStuck")

    _clear(watched, "DispatchLate", "OutboxStuck", "DispatcherDown")


@pytest.mark.long
def test_canaries_that_stay_away_are_missed(watched: Watched) -> None:
    with _stopped(watched.stack.worker):
        _fire(watched, "CanaryLost")

    _clear(watched, "CanaryLost", "NoConsumers")
    assert watched.rows("SELECT count(*) FROM jobs WHERE task = 'taskplatform.canary' AND state = 'queued'")[0][0] <= 2


@pytest.mark.long
def test_an_exporter_that_is_gone_is_missed_and_shows_no_old_figures(watched: Watched) -> None:
    with _stopped(watched.exporter):
        _fire(watched, "ExporterDown")
        assert watched.prometheus.ask("tp_outbox_rows") == []

    _clear(watched, "ExporterDown")
    eventually(lambda: watched.value("max(tp_outbox_rows)") is not None, within_seconds=30)


@pytest.mark.long
def test_failing_and_forged_work_is_seen(watched: Watched) -> None:
    def more_of_it() -> bool:
        watched.submit("watched.hopeless", 5)
        _forge(watched)
        return watched.prometheus.firing() >= FAILING

    eventually(more_of_it, within_seconds=90)

    def less_of_it() -> bool:
        watched.submit("watched.quick", 5)
        return watched.prometheus.firing().isdisjoint(FAILING)

    eventually(less_of_it, within_seconds=150)


@pytest.mark.long
def test_a_pool_that_needs_more_workers_than_it_may_have_is_seen(watched: Watched) -> None:
    # A pool whose latest jobs failed keeps its size, whatever waits.
    _run(watched, "watched.quick", 1000)

    jobs = watched.client.submit_many([watched.call("watched.slow") for _ in range(JOBS)])
    _fire(watched, "PoolAtCeiling")

    for job in jobs:
        job.cancel()
    _clear(watched, "PoolAtCeiling", "CanaryLost")


@pytest.mark.long
def test_workers_that_should_be_there_and_are_not_are_missed(watched: Watched) -> None:
    with _stopped(watched.stack.worker):
        _fire(watched, "WorkersMissing")

    _clear(watched, "WorkersMissing", "NoConsumers", "TargetDown", "CanaryLost")


@pytest.mark.long
def test_a_worker_that_vanishes_with_its_job_is_seen_the_first_time(watched: Watched) -> None:
    job = watched.client.submit(named("watched.slow"))
    eventually(lambda: job.status().state is State.RUNNING, within_seconds=60)

    watched.stack.worker.kill_and_restart()

    _fire(watched, "WorkersVanish")
    assert job.wait(60).state is State.SUCCEEDED
    _clear(watched, "WorkersVanish", "TargetDown")


@pytest.mark.long
def test_an_api_that_is_gone_is_missed(watched: Watched) -> None:
    with _stopped(watched.stack.api):
        _fire(watched, "ApiDown")

    _clear(watched, "ApiDown", "TargetDown", "CanaryLost")


@pytest.mark.long
def test_a_lease_that_nobody_uses_leaves_no_autoscaler_active(watched: Watched) -> None:
    watched.rows("UPDATE leases SET holder = 'nobody', until = now() + interval '1 hour' WHERE name = %s", LEASE)
    try:
        _fire(watched, "NoActiveAutoscaler")
    finally:
        watched.rows("DELETE FROM leases WHERE name = %s", LEASE)

    _clear(watched, "NoActiveAutoscaler")


@pytest.mark.long
def test_an_alert_reaches_its_receiver_and_its_end_too_and_what_follows_from_it_does_not(watched: Watched) -> None:
    eventually(watched.prometheus.alertmanagers)
    page = Heard(path="/pages", name="DispatcherDown", status="firing")
    before = len(watched.receiver.heard())

    def heard() -> list[Heard]:
        return watched.receiver.heard()[before:]

    with _stopped(watched.stack.dispatcher):
        _fire(watched, "DispatcherDown", "TargetDown")
        eventually(lambda: page in heard(), within_seconds=60)

    eventually(lambda: replace(page, status="resolved") in heard(), within_seconds=90)
    assert {one.runbook for one in heard() if one == page} == {"docs/runbooks/DispatcherDown.md"}
    assert "TargetDown" not in {one.name for one in heard()}


@pytest.mark.parametrize("page", ["/livez", "/readyz", "/startupz"])
def test_every_process_says_that_it_is_well(watched: Watched, page: str) -> None:
    stack = watched.stack
    parts = (stack.api, stack.worker, stack.dispatcher, watched.exporter, watched.autoscaler)

    eventually(lambda: [_status(part, page) for part in parts] == [200] * len(parts), within_seconds=60)


def _status(part: Part, page: str) -> int:
    connection = HTTPConnection("127.0.0.1", part.health_port, timeout=5)
    try:
        connection.request("GET", page)
        return connection.getresponse().status
    finally:
        connection.close()


def _forge(watched: Watched) -> None:
    with Connection(watched.stack.home.broker_url) as connection:
        producer = connection.Producer()
        producer.publish(
            b"[[], {}, {}]",
            routing_key=work_queue("default", Priority.NORMAL),
            headers={"id": str(uuid4()), "task": "watched.quick", "lang": "py"},
            content_type="application/json",
            content_encoding="utf-8",
        )
