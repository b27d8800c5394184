"""Sends ended spans to a collector from a thread of its own; whatever becomes of them, nobody waits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from taskplatform.telemetry import logger

PAUSE_SECONDS: Final = 1.0
"""How long an ended span waits for others to go with."""
BATCH_SPANS: Final = 512
MOST_SPANS: Final = 8192
"""Spans that may wait; more are dropped."""
LAST_SECONDS: Final = 2.0
"""How long a stopping process may take for its last spans."""


class Fate(StrEnum):
    """What became of spans."""

    SENT = "sent"
    FAILED = "failed"  # the collector did not take them
    DROPPED = "dropped"  # too many waited


class Outlet(SpanProcessor):
    """A bounded queue and the thread that empties it, started with the first span.

    OpenTelemetry's own batching starts its thread anew in every forked child. A child of a worker makes no spans, so
    that this one has none: what it inherits is never touched.
    """

    def __init__(self, exporter: SpanExporter, count: Callable[[Fate, int], None]) -> None:
        self._exporter = exporter
        self._count = count
        self._waiting: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._failing = False
        self._log = logger("taskplatform.otel")

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span; one too many is dropped."""
        if len(self._waiting) >= MOST_SPANS:
            self._count(Fate.DROPPED, 1)
            return
        self._waiting.append(span)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
            self._thread.start()
        if len(self._waiting) == BATCH_SPANS:
            self._wake.set()

    def shutdown(self) -> None:
        """Send what is left, for LAST_SECONDS at most."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(LAST_SECONDS)
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Say that nothing is forced here: spans leave within a second."""
        return True

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(PAUSE_SECONDS)
            self._wake.clear()
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_SPANS))])

    def _send(self, spans: list[ReadableSpan]) -> None:
        try:
            sent = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001  The thread outlives whatever an exporter runs into.
            self._log.debug("An exporter failed", trouble=f"{type(error).__name__}: {error}")
            sent = False
        self._count(Fate.SENT if sent else Fate.FAILED, len(spans))
        if sent and self._failing:
            self._log.info("Spans are taken again")
        elif not sent and not self._failing:
            self._log.warning("Spans are not taken, and are lost until they are")
        self._failing = not sent
