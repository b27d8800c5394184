"""What of a failed attempt leaves for the collector."""

import time
from collections.abc import Sequence
from uuid import uuid4

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from taskplatform.job import AttemptEnd, Envelope, Failure, Reason, State, Trouble
from taskplatform.otel.outlet import Outlet
from taskplatform.otel.tracer import OpenTelemetryTracer
from taskplatform.store.working import Ended
from taskplatform.telemetry import new_metrics
from taskplatform.tracing import MOST_TROUBLE
from workers.endings import error_text
from workers.spans import Spans


class Exporter(SpanExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep them."""
        self.spans += spans
        return SpanExportResult.SUCCESS


def test_a_failed_attempt_tells_its_message_at_no_great_length_and_no_traceback() -> None:
    exporter, now = Exporter(), time.time()
    tracer = OpenTelemetryTracer(Outlet(exporter, lambda fate, spans: None), "worker", 1.0)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    job = Envelope(id=uuid4(), task="a.b", body="", tenant="acme", pool="default", series=3, trace=trace)
    failure = Failure(trouble=Trouble.ERROR, message="m" * 16_000, traceback="Traceback: secret")
    ending = Ended(
        id=job.id,
        attempt=1,
        state=State.DEAD,
        end=AttemptEnd.FAILED,
        started=now,
        stopped=now,
        reason=Reason.NOT_RETRYABLE,
        error=error_text(failure),
        failed=1,
    )

    Spans(tracer, new_metrics()).turned(now, [(job, ending)], [])
    tracer.close()

    assert [span.status.description for span in exporter.spans if span.name == "run a.b"] == ["m" * MOST_TROUBLE]
