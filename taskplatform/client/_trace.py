"""Continues the caller's trace: a span for each request where the program has OpenTelemetry, or its job's context."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskplatform.client._base import Answer, NoAnswer, Request
from taskplatform.task import find_current_job

if TYPE_CHECKING:
    from opentelemetry.trace import Span

HEADER = "traceparent"


class Leg:
    """One request under way: `headers` to send along."""

    def __init__(self, headers: Mapping[str, str], span: Span | None = None) -> None:
        self.headers = headers
        self._span = span

    def over(self, reply: Answer | NoAnswer) -> Answer | NoAnswer:
        """Note what came back, and pass it on."""
        if self._span is not None:
            _describe(self._span, reply)
        return reply


@contextmanager
def leg(request: Request) -> Iterator[Leg]:
    """Take part in a trace while a request is under way.

    Without OpenTelemetry in the program there is no trace to continue but that of the job that runs here.
    """
    job = find_current_job()
    trace = None if job is None else job.trace
    if "opentelemetry.trace" not in sys.modules:
        yield Leg({} if trace is None else {HEADER: trace})
        return
    from opentelemetry import trace as api
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = TraceContextTextMapPropagator()
    outer: Any = None
    if trace is not None and not api.get_current_span().get_span_context().is_valid:
        outer = carrier.extract({HEADER: trace})
    facts = {"http.request.method": request.method, "url.path": request.path}
    tracer = api.get_tracer("taskplatform")
    with tracer.start_as_current_span(request.method, outer, api.SpanKind.CLIENT, facts) as span:
        headers: dict[str, str] = {}
        carrier.inject(headers)
        yield Leg(headers, span)


def _describe(span: Span, reply: Answer | NoAnswer) -> None:
    from opentelemetry.trace import StatusCode

    match reply:
        case Answer(status=status):
            span.set_attribute("http.response.status_code", status)
            if status >= 400:
                span.set_status(StatusCode.ERROR)
        case NoAnswer(why=why):
            span.set_status(StatusCode.ERROR, why)
