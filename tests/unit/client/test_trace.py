"""The SDK continues the trace of its caller, and that of the job it is called in."""

from collections.abc import Iterator
from uuid import UUID

import httpx2
import pytest
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    use_span,
)

from taskplatform.client import Client
from taskplatform.task import CurrentJob, enter_job
from tests.unit.client.scripts import JOB_ID

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OUTER = SpanContext(0xAB, 0xCD, is_remote=False, trace_flags=TraceFlags(1))


@pytest.fixture
def in_a_job() -> Iterator[None]:
    enter_job(CurrentJob(id=UUID(JOB_ID.hex), attempt=1, tenant="acme", trace=TRACE))
    yield
    enter_job(None)


def _sent() -> str | None:
    """Send a request, and give the context that went along."""
    seen: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("traceparent"))
        return httpx2.Response(200, json={"tasks": []})

    with Client(transport=httpx2.MockTransport(answer)) as client:
        client.tasks()
    return seen[0]


def test_the_span_of_the_caller_goes_along() -> None:
    with use_span(NonRecordingSpan(OUTER)):
        assert _sent() == f"00-{0xAB:032x}-{0xCD:016x}-01"


def test_inside_a_job_the_context_of_its_run_goes_along(in_a_job: None) -> None:
    assert _sent() == TRACE


def test_a_span_inside_a_job_comes_before_the_run_itself(in_a_job: None) -> None:
    with use_span(NonRecordingSpan(OUTER)):
        assert _sent() == f"00-{0xAB:032x}-{0xCD:016x}-01"


def test_without_any_trace_nothing_goes_along() -> None:
    assert _sent() is None
