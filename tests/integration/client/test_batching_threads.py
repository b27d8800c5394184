"""Threads that hand in single jobs share requests, and each of them gets its own answer."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from taskplatform import Retry
from taskplatform.client import Client, Effort, JobHandle, NoAnswer, Rejected, call
from taskplatform.errors import TaskplatformError
from tests.fixtures.waiting import eventually
from tests.integration.client.faulty_api import JOB, Fault, FaultyApi, running

CALLERS = 8
_EFFORT = Effort(retry=Retry(max_attempts=4, backoff_seconds=0.001, jitter=0.0), timeout_seconds=5.0)

_LEFT_OPEN = """
import sys, threading, time
from taskplatform.client import Client

block = Client(sys.argv[1]).batching(window_seconds=3600)
batching = block.__enter__()

def submit():
    print(batching.submit("demo.add", 1, 2).id)
    threading.main_thread().join()
    print(batching.submit("demo.add", 3, 4).id)

threading.Thread(target=submit).start()
while not batching.waiting:
    time.sleep(0.01)
"""


@pytest.fixture
def api() -> Iterator[FaultyApi]:
    with running(FaultyApi()) as api:
        yield api


@pytest.fixture
def client(api: FaultyApi) -> Iterator[Client]:
    with Client(api.url, effort=_EFFORT, sleep=lambda _: None) as client:
        yield client


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CALLERS) as threads:
        yield threads


def test_submissions_of_many_threads_share_a_request(
    api: FaultyApi, client: Client, threads: ThreadPoolExecutor
) -> None:
    with client.batching(window_seconds=3600, batch_size=CALLERS) as batching:
        handles = list(threads.map(lambda n: batching.submit("demo.add", n, n), range(CALLERS)))

    assert len(handles) == CALLERS
    assert api.paths == ["/v1/jobs:batch"]
    assert sorted(item["args"] for item in api.bodies[0]) == [[n, n] for n in range(CALLERS)]


def test_a_batch_that_is_not_full_is_sent_when_its_window_is_over(api: FaultyApi, client: Client) -> None:
    with client.batching(window_seconds=0.001) as batching:
        batching.submit("demo.add", 1, 2)
        batching.submit("demo.add", 3, 4)

    assert [[item["args"] for item in body] for body in api.bodies] == [[[1, 2]], [[3, 4]]]


def test_the_end_of_the_block_sends_what_still_waits(
    api: FaultyApi, client: Client, threads: ThreadPoolExecutor
) -> None:
    with client.batching(window_seconds=3600) as batching:
        submission: Future[JobHandle[object]] = threads.submit(batching.submit, "demo.add", 1, 2)
        eventually(lambda: batching.waiting == 1)

    assert submission.result(5).status().result == 3


def test_after_the_block_nothing_is_taken(client: Client) -> None:
    with client.batching() as batching:
        pass

    with pytest.raises(TaskplatformError, match="has ended"):
        batching.submit("demo.add", 1, 2)


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.CUT_IN_THE_MIDDLE, Fault.AWAY])
def test_a_request_that_is_repeated_names_the_same_jobs(
    api: FaultyApi, client: Client, threads: ThreadPoolExecutor, fault: Fault
) -> None:
    api.faults = [fault]

    with client.batching(window_seconds=3600, batch_size=CALLERS) as batching:
        list(threads.map(lambda n: batching.submit("demo.add", n, n), range(CALLERS)))

    first, again = [[item["idempotency_key"] for item in body] for body in api.bodies]
    assert first == again
    assert len(set(first)) == CALLERS


def test_what_a_batch_runs_into_reaches_every_thread_in_it(
    api: FaultyApi, client: Client, threads: ThreadPoolExecutor
) -> None:
    api.faults = [Fault.CUT] * 4

    with client.batching(window_seconds=3600, batch_size=CALLERS) as batching:
        submissions = [threads.submit(batching.submit, "demo.add", n, n) for n in range(CALLERS)]
        errors = [submission.exception(5) for submission in submissions]

    assert [type(error) for error in errors] == [NoAnswer] * CALLERS


def test_a_refused_job_is_the_error_of_its_own_thread_alone(
    api: FaultyApi, client: Client, threads: ThreadPoolExecutor
) -> None:
    api.refused = "demo.unknown"

    with client.batching(window_seconds=3600, batch_size=2) as batching:
        good = threads.submit(batching.submit, "demo.add", 1, 2)
        bad = threads.submit(batching.send, call("demo.unknown"))
        error = bad.exception(5)
        handle = good.result(5)

    assert isinstance(error, Rejected)
    assert handle.task.name == "demo.add"


def test_a_job_that_spoils_its_request_is_the_error_of_its_own_thread_alone(
    api: FaultyApi, client: Client, threads: ThreadPoolExecutor
) -> None:
    api.poison = "demo.deep"

    with client.batching(window_seconds=3600, batch_size=CALLERS) as batching:
        bad = threads.submit(batching.send, call("demo.deep"))
        good = [threads.submit(batching.submit, "demo.add", n, n) for n in range(CALLERS - 1)]
        error = bad.exception(30)
        handles = [submission.result(30) for submission in good]

    assert isinstance(error, Rejected)
    assert error.code == "too_deep"
    assert [handle.task.name for handle in handles] == ["demo.add"] * (CALLERS - 1)


def test_a_process_with_an_open_block_answers_whoever_waits_and_exits(api: FaultyApi) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LEFT_OPEN, api.url], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == [JOB["id"]] * 2
