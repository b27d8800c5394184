"""Spans leave in the background or not at all: nobody who makes one waits or hears of trouble."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from taskplatform.otel.outlet import BATCH_SPANS, MOST_SPANS, Fate, Outlet
from tests.fixtures.waiting import eventually


@dataclass
class Exporter(SpanExporter):
    """Takes batches while its door is open."""

    answer: Callable[[], SpanExportResult] = lambda: SpanExportResult.SUCCESS
    door: threading.Event = field(default_factory=threading.Event)
    sizes: list[int] = field(default_factory=list)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.door.wait(60)
        self.sizes.append(len(spans))
        return self.answer()


@dataclass
class Bench:
    exporter: Exporter = field(default_factory=Exporter)
    fates: Counter[Fate] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.outlet = Outlet(self.exporter, self._count)

    def emit(self, spans: int) -> None:
        for _ in range(spans):
            self.outlet.on_end(ReadableSpan("span"))

    def _count(self, fate: Fate, spans: int) -> None:
        self.fates[fate] += spans


@pytest.fixture
def bench() -> Iterator[Bench]:
    one = Bench()
    yield one
    one.exporter.door.set()
    one.outlet.shutdown()


def test_many_spans_leave_in_few_batches(bench: Bench) -> None:
    bench.emit(3 * BATCH_SPANS)
    bench.exporter.door.set()

    eventually(lambda: bench.fates == {Fate.SENT: 3 * BATCH_SPANS}, within_seconds=30)
    assert max(bench.exporter.sizes) <= BATCH_SPANS


def test_while_a_collector_hangs_no_more_wait_than_there_is_room_for(bench: Bench) -> None:
    bench.emit(MOST_SPANS + 2 * BATCH_SPANS)

    # One batch at most is on its way.
    assert BATCH_SPANS <= bench.fates[Fate.DROPPED] <= 2 * BATCH_SPANS
    assert not bench.exporter.sizes


def _raise() -> SpanExportResult:
    raise RuntimeError("a bug of an exporter")


@pytest.mark.parametrize("answer", [lambda: SpanExportResult.FAILURE, _raise])
def test_what_is_not_taken_is_counted_and_the_next_spans_leave(
    bench: Bench, answer: Callable[[], SpanExportResult]
) -> None:
    bench.exporter.door.set()
    bench.exporter.answer = answer
    bench.emit(5)
    eventually(lambda: bench.fates[Fate.FAILED] == 5, within_seconds=30)

    bench.exporter.answer = lambda: SpanExportResult.SUCCESS
    bench.emit(7)

    eventually(lambda: bench.fates[Fate.SENT] == 7, within_seconds=30)


def test_the_last_spans_leave_with_the_process(bench: Bench) -> None:
    bench.exporter.door.set()
    bench.emit(3)

    bench.outlet.shutdown()

    assert bench.fates == {Fate.SENT: 3}


def test_a_collector_that_hangs_keeps_no_process_from_stopping(bench: Bench) -> None:
    bench.emit(3)

    bench.outlet.shutdown()

    assert not bench.exporter.sizes
