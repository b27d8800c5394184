"""What traces cost a worker's parent for a job: nothing is traced, its trace is not kept, its trace is kept."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Sequence
from time import process_time, time
from uuid import uuid4

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from taskplatform.job import AttemptEnd, Envelope, State
from taskplatform.metrics import Part
from taskplatform.otel.outlet import Outlet
from taskplatform.otel.tracer import OpenTelemetryTracer
from taskplatform.store.working import Claimed, Ended
from taskplatform.telemetry import new_metrics
from workers.spans import Spans

TURN_JOBS = 50
ROUNDS = 9
TURNS = 100


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def main() -> None:
    """Print nanoseconds for a job that is claimed and recorded."""
    outlet = Outlet(_Nowhere(), lambda fate, spans: None)
    spans = Spans(OpenTelemetryTracer(outlet, Part.WORKER, 1.0), new_metrics(Part.WORKER))
    for name, hook, flags in (
        ("nothing is traced", None, "01"),
        ("its trace is not kept", spans, "00"),
        ("its trace is kept", spans, "01"),
    ):
        print(f"{name:24}{_nanoseconds(_turn(hook, flags)):>10.1f} ns")
    outlet.shutdown()


def _nanoseconds(turn: Callable[[], None]) -> float:
    # The least of several: what others do meanwhile only adds to it.
    return min(timeit.repeat(turn, timer=process_time, number=TURNS, repeat=ROUNDS)) / TURNS / TURN_JOBS * 1e9


def _turn(spans: Spans | None, flags: str) -> Callable[[], None]:
    trace = f"00-{'a' * 32}-{'b' * 16}-{flags}"
    jobs = [
        Envelope(id=uuid4(), task="noop", body="[[],{},{}]", tenant="acme", pool="default", trace=trace)
        for _ in range(TURN_JOBS)
    ]
    recorded = [(job, _ended(job)) for job in jobs]
    claimed = [(job, _claimed(job)) for job in jobs]

    def turn() -> None:
        # As the parent does it.
        began = time()
        if spans is not None:
            spans.turned(began, recorded, claimed)

    return turn


def _ended(job: Envelope) -> Ended:
    return Ended(id=job.id, attempt=1, state=State.SUCCEEDED, end=AttemptEnd.SUCCEEDED, started=1.0, stopped=2.0)


def _claimed(job: Envelope) -> Claimed:
    return Claimed(id=job.id, attempt=1, failures=0, crashes=0, max_attempts=5, suspect=False)


if __name__ == "__main__":
    main()
