"""The spans of a worker's jobs: of attempts whose child died, of coroutines, and of jobs nobody can send spans of."""

import re
from http.client import HTTPConnection
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from taskplatform.servers import free_ports
from tests.fixtures.celery import Bench
from tests.fixtures.collector import Collector
from tests.fixtures.waiting import eventually
from tests.integration.workers.test_faults import children_of

CALLER = "00f067aa0ba902b7"


def _trace() -> str:
    return f"00-{uuid4().hex}-{CALLER}-01"


def _run_twice(bench: Bench, task: str, trace: str) -> UUID:
    job_id = bench.submit(task, 1, trace=trace)
    eventually(lambda: bench.release_due() or bench.job(job_id)["state"] == "succeeded", within_seconds=60)
    return job_id


@pytest.mark.parametrize(("kind", "task"), [("prefork", "context"), ("async", "async_context")])
def test_each_attempt_has_a_span_and_runs_in_its_context(
    amqp_bench: Bench, collector: Collector, kind: str, task: str
) -> None:
    amqp_bench.worker(worker_kind=kind, trace_url=collector.url)
    trace = _trace()

    job_id = _run_twice(amqp_bench, task, trace)

    first, second = collector.attempts(trace[3:35], 2)
    assert (first.failed, second.failed) == (True, False)
    assert {first.parent_id, second.parent_id} == {CALLER}
    assert amqp_bench.job(job_id)["result"] == f'"00-{trace[3:35]}-{second.span_id}-01"'


def test_a_child_that_is_made_anew_has_no_thread_that_sends_spans(amqp_bench: Bench, collector: Collector) -> None:
    worker = amqp_bench.worker(worker_processes=1, trace_url=collector.url)
    trace = _trace()

    _run_twice(amqp_bench, "context", trace)

    assert collector.attempts(trace[3:35], 2)
    (child,) = children_of(worker)
    assert len(list(Path(f"/proc/{child}/task").iterdir())) == 1


def test_jobs_end_although_nobody_takes_their_spans(amqp_bench: Bench) -> None:
    nobody, port = free_ports(2)
    amqp_bench.worker(trace_url=f"http://127.0.0.1:{nobody}/v1/traces", metrics_port=port)

    amqp_bench.submit_many([("noop", [number]) for number in range(500)], trace=_trace())

    amqp_bench.all_succeed(500, within_seconds=60)
    eventually(lambda: _lost(port) >= 500, within_seconds=60)


def test_a_caller_that_keeps_no_trace_gets_none(amqp_bench: Bench, collector: Collector) -> None:
    amqp_bench.worker(trace_url=collector.url)
    unkept, kept = _trace()[:-2] + "00", _trace()

    job_id = amqp_bench.submit("context", trace=unkept)
    amqp_bench.ended(job_id)
    amqp_bench.ended(amqp_bench.submit("noop", trace=kept))

    assert collector.whole(kept[3:35], record=1)
    assert collector.trace(unkept[3:35]) == []


def _lost(port: int) -> float:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    finally:
        connection.close()
    found = re.search(r'^tp_spans_total{outcome="failed".*} (\S+)$', page, re.MULTILINE)
    return float(found[1]) if found else 0.0
