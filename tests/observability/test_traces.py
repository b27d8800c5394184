"""One job's trace across all processes, as a collector gets it."""

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.fixtures.collector import Collector, Span
from tests.fixtures.waiting import eventually
from tests.observability.conftest import Watched

ROOT = Path(__file__).parents[2]
TASK = "watched.second_time"
JOBS = 40
SERVER = 2
"""The kind of a span of a server, in OTLP."""

pytestmark = pytest.mark.timeout(200)


def _order(watched: Watched, collector: Collector) -> tuple[str, str, str]:
    """Run a program that hands in a job; gives the id of its trace, of the job, and the result."""
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "tests.observability.caller"),
            *(watched.stack.settings.api_url, watched.stack.key, collector.url, TASK),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    trace_id, job_id, result = ran.stdout.split()
    return trace_id, job_id, result


def _named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def test_a_retried_job_is_one_trace_from_its_caller_through_every_process(
    watched: Watched, collector: Collector
) -> None:
    trace_id, job_id, context = _order(watched, collector)

    spans = collector.whole(trace_id, record=2, order=1, accept=1, publish=2, release=1)

    (order,) = _named(spans, "order")
    client, *_ = _named(spans, "POST")
    (served,) = _named(spans, "POST /v1/jobs")
    assert (client.parent_id, served.parent_id) == (order.span_id, client.span_id)
    steps = [span for span in spans if "taskplatform.job.id" in span.facts]
    assert [(span.service.removeprefix("taskplatform-"), span.name, span.attempt) for span in steps] == [
        ("api", "accept", 0),
        ("api", "publish", 0),
        ("worker", "claim", 1),
        ("worker", f"run {TASK}", 1),
        ("worker", "record", 1),
        ("dispatcher", "release", 0),
        ("dispatcher", "publish", 0),
        ("worker", "claim", 2),
        ("worker", f"run {TASK}", 2),
        ("worker", "record", 2),
    ]
    assert {(span.parent_id, span.facts["taskplatform.job.id"]) for span in steps} == {(served.span_id, job_id)}
    assert [span.failed for span in _named(spans, f"run {TASK}")] == [True, False]
    # What the second attempt did itself would have been below its run.
    assert context.split("-")[1:3] == [trace_id, _named(spans, f"run {TASK}")[1].span_id]


def test_what_was_done_once_for_many_jobs_is_linked_to_the_first_of_them(
    watched: Watched, collector: Collector
) -> None:
    trace_id = "b" * 32
    answer = httpx2.post(
        f"{watched.stack.settings.api_url}/v1/jobs:batch",
        headers={"authorization": f"Bearer {watched.stack.key}", "traceparent": f"00-{trace_id}-{'c' * 16}-01"},
        json=[{"task": "watched.quick"}] * JOBS,
    )
    assert answer.json()["accepted"] == JOBS

    spans = collector.whole(trace_id, accept=JOBS, publish=JOBS, record=JOBS)

    for name in ("accept", "publish"):
        first, *others = [span for span in spans if span.name == name and span.facts["taskplatform.batch.jobs"] == JOBS]
        assert len(first.links) == len(others) == JOBS - 1
        assert {tuple(span.links) for span in others} == {((trace_id, first.span_id),)}


@pytest.mark.parametrize(
    "histogram", ["tp_http_request_seconds_bucket", "tp_job_wait_seconds_bucket", "tp_job_run_seconds_bucket"]
)
def test_a_latency_leads_to_traces_that_show_one(watched: Watched, collector: Collector, histogram: str) -> None:
    watched.submit("watched.quick", 1)

    shown = eventually(lambda: watched.prometheus.traces(histogram), within_seconds=60)

    eventually(lambda: shown <= {span.trace_id for span in collector.everything()}, within_seconds=60)


def test_probes_make_no_trace(watched: Watched, collector: Collector) -> None:
    watched.submit("watched.quick", 1)

    served = eventually(
        lambda: {span.name for span in collector.everything() if span.kind == SERVER}, within_seconds=60
    )

    assert served
    assert not [name for name in served if name.endswith(("z", "/metrics", "other"))]
