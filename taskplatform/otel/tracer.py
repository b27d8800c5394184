"""The platform's steps as OpenTelemetry spans: sampled with their trace, named, linked, and handed to the outlet."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from importlib.metadata import version
from itertools import islice
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from taskplatform.otel.outlet import Fate, Outlet
from taskplatform.settings import Settings
from taskplatform.telemetry import Metrics
from taskplatform.tracing import MOST_LINKS, MOST_TROUBLE, Serving, Step, StepKind, Tracer, is_kept

EXPORT_SECONDS: Final = 5.0
"""How long a collector may take for a batch."""

_KINDS = {
    StepKind.INTERNAL: SpanKind.INTERNAL,
    StepKind.PRODUCER: SpanKind.PRODUCER,
    StepKind.CONSUMER: SpanKind.CONSUMER,
}
_NOWHERE: Final = Context()


def new_tracer(settings: Settings, part: str, metrics: Metrics) -> Tracer:
    """Make the tracer of a process; nothing is connected, and no thread started, before there is a span."""
    # It says the same at every batch; the outlet says it once.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(endpoint=settings.trace_url, timeout=EXPORT_SECONDS)

    def count(fate: Fate, spans: int) -> None:
        metrics.spans_total.labels(outcome=fate).inc(spans)

    return OpenTelemetryTracer(Outlet(exporter, count), part, settings.trace_ratio)


class OpenTelemetryTracer:
    """See Tracer."""

    def __init__(self, outlet: Outlet, part: str, ratio: float) -> None:
        self._ids = _Ids()
        host, pid = socket.gethostname(), os.getpid()
        self._provider = TracerProvider(
            # A caller's trace is kept or not as the caller has decided.
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create(
                {
                    "service.namespace": "taskplatform",
                    "service.name": f"taskplatform-{part}",
                    "service.version": version("taskplatform"),
                    "service.instance.id": f"{host}:{pid}",
                    "host.name": host,
                    "process.pid": pid,
                }
            ),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._provider.add_span_processor(outlet)
        self._tracer = self._provider.get_tracer("taskplatform", version("taskplatform"))

    def serve(self, method: str, traceparent: str | None) -> Serving:
        """Begin the span of a request."""
        parent = _NOWHERE if traceparent is None else _inside(_context_of(traceparent))
        return _Request(self._tracer.start_span(method, parent, SpanKind.SERVER), method)

    def note(self, step: Step) -> None:
        """Make the span of a step."""
        if step.job.trace is not None and is_kept(step.job.trace):
            self._make(step, _context_of(step.job.trace), [])

    def note_all(self, steps: Iterable[Step]) -> None:
        """Make the spans of steps that were one."""
        kept = [(step, _context_of(step.job.trace)) for step in steps if step.job.trace and is_kept(step.job.trace)]
        if not kept:
            return
        others = [Link(context) for _, context in islice(kept, 1, MOST_LINKS + 1)]
        first = Link(self._make(*kept[0], others))
        for step, context in kept[1:]:
            self._make(step, context, [first])

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _make(self, step: Step, parent: SpanContext, links: list[Link]) -> SpanContext:
        job = step.job
        facts = {
            "taskplatform.job.id": str(job.id),
            "taskplatform.task": job.task,
            "taskplatform.tenant": job.tenant,
            "taskplatform.pool": job.pool,
            **{f"taskplatform.{name}": value for name, value in step.facts.items()},
        }
        self._ids.next_span_id = step.span_id
        span = self._tracer.start_span(
            step.name, _inside(parent), _KINDS[step.kind], facts, links, start_time=_nanoseconds(step.began)
        )
        if step.trouble is not None:
            span.set_status(Status(StatusCode.ERROR, step.trouble[:MOST_TROUBLE]))
        span.end(_nanoseconds(max(step.began, step.ended)))
        return span.get_span_context()


class _Request:
    """See Serving."""

    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, route: str, status: int) -> None:
        """End the span; a refusal is the caller's trouble and not an error of this one."""
        span = self._span
        span.update_name(f"{self._method} {route}")
        span.set_attributes(
            {"http.request.method": self._method, "http.route": route, "http.response.status_code": status}
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()


class _Ids(RandomIdGenerator):
    """Random ids, but for a span whose id was told before it was made."""

    next_span_id: int | None = None

    def generate_span_id(self) -> int:
        chosen, self.next_span_id = self.next_span_id, None
        return super().generate_span_id() if chosen is None else chosen


def _context_of(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _inside(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), _NOWHERE)


def _nanoseconds(moment: float) -> int:
    return int(moment * 1e9)
