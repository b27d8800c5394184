"""What a process tells about itself: structured log lines on stderr, and the metrics that Prometheus reads."""

from __future__ import annotations

import logging
import sys
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Exemplar

from taskplatform.metrics import METRICS, Kind, Metric, Part
from taskplatform.task import find_current_job
from taskplatform.tracing import Tracer, trace_id_of

OTHER_TASK: Final = "other"
"""The label of every task beyond the first TASK_LABELS."""
TASK_LABELS: Final = 200
"""How many tasks get a label value of their own in one process."""


class Distribution(Histogram):
    """A histogram that takes in many values at once, for the price of one and a little: workers count by the turn."""

    def observe_all(self, values: Iterable[float]) -> None:
        """Count values, none of them negative."""
        bounds = self._upper_bounds
        total = 0.0
        counts: Tally[int] = Tally()
        for value in values:
            total += value
            counts[bisect_left(bounds, value)] += 1
        for place, count in counts.items():
            self._buckets[place].inc(count)
        self._sum.inc(total)

    def point(self, value: float, trace: str) -> None:
        """Let the bucket of a value, which is counted elsewhere, point to a trace that shows one like it."""
        bucket = self._buckets[bisect_left(self._upper_bounds, value)]
        bucket.set_exemplar(Exemplar({"trace_id": trace_id_of(trace)}, value, time.time()))


class Metrics:
    """The instruments of one process on a registry of their own.

    It shows the metrics that processes of this `part` have, all of them for None. `labels` are added to every sample
    when it is shown, so that they cost nothing when something is counted. `tracer` takes spans, None while nothing is
    traced.
    """

    build_info: Gauge
    mode: Gauge
    spans_total: Counter
    event_loop_lag_seconds: Gauge
    role_rounds_total: Counter
    role_errors_total: Counter
    role_round_age_seconds: Gauge
    jobs_submitted_total: Counter
    intake_batch_size: Distribution
    publish_seconds: Distribution
    publish_unconfirmed_total: Counter
    http_requests_total: Counter
    cache_reads_total: Counter
    http_request_seconds: Distribution
    jobs_released_total: Counter
    outbox_relayed_total: Counter
    jobs_republished_total: Counter
    jobs_rescued_total: Counter
    dead_letters_buried_total: Counter
    bundles_opened_total: Counter
    jobs_expired_total: Counter
    archive_jobs_total: Counter
    archive_objects_total: Counter
    archive_bytes_total: Counter
    archive_failures_total: Counter
    archive_failing_seconds: Gauge
    jobs_finished_total: Counter
    jobs_ended_total: Counter
    job_run_seconds: Distribution
    job_wait_seconds: Distribution
    jobs_claimed_total: Counter
    worker_turn_jobs: Distribution
    worker_slots: Gauge
    worker_jobs: Gauge
    pool_workers: Gauge
    pool_slots: Gauge
    scale_decisions_total: Counter
    worker_seconds_total: Counter
    autoscaler_active: Gauge
    jobs: Gauge
    jobs_blocked: Gauge
    queue_oldest_age_seconds: Gauge
    dispatch_lag_seconds: Gauge
    dead_letters: Gauge
    census_seconds: Gauge
    queue_messages: Gauge
    dead_queue_messages: Gauge
    outbox_rows: Gauge
    outbox_jobs: Gauge
    outbox_oldest_age_seconds: Gauge
    workers: Gauge
    ready_slots: Gauge
    jobs_unaccounted: Gauge
    replica_lag_seconds: Gauge
    replica_lag_bytes: Gauge
    postgres_sessions: Gauge
    postgres_oldest_transaction_seconds: Gauge
    canary_jobs_total: Counter
    canary_seconds: Distribution
    canary_last_arrival_timestamp_seconds: Gauge

    def __init__(self, part: Part | None = None, labels: Mapping[str, str] | None = None) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._labels = dict(labels or {})
        self._tasks: set[str] = set()
        self.tracer: Tracer | None = None
        for name, metric in METRICS.items():
            # What another kind of process counts stays out of sight here: a zero would be taken for an answer.
            shown = self.registry if part is None or part in metric.parts else None
            setattr(self, name.removeprefix("tp_"), _instrument(name, metric, shown))
        self.build_info.labels(version=version("taskplatform")).set(1)

    def task_label(self, task: str) -> str:
        """Give the value of a label `task`: its name for the first TASK_LABELS of this process, then OTHER_TASK."""
        if task in self._tasks:
            return task
        if len(self._tasks) >= TASK_LABELS:
            return OTHER_TASK
        self._tasks.add(task)
        return task

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Give all values and their content type: OpenMetrics, with exemplars, to who accepts it, or plain text."""
        encode, kind = choose_encoder(accept)
        return encode(_Labelled(self.registry, self._labels)), kind


def _instrument(name: str, metric: Metric, registry: CollectorRegistry | None) -> Counter | Gauge | Distribution:
    match metric.kind:
        case Kind.COUNTER:
            return Counter(name, metric.help, metric.labels, registry=registry)
        case Kind.GAUGE:
            return Gauge(name, metric.help, metric.labels, registry=registry)
        case Kind.HISTOGRAM:
            return Distribution(name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


class _Labelled(CollectorRegistry):
    def __init__(self, inner: CollectorRegistry, labels: Mapping[str, str]) -> None:
        super().__init__()
        self._inner = inner
        self._labels_added = labels

    def collect(self) -> Iterator[Family]:
        for family in self._inner.collect():
            family.samples = [
                sample._replace(labels={**sample.labels, **self._labels_added})
                for sample in family.samples
                # When each series began: as many series again, which nobody reads.
                if not sample.name.endswith("_created")
            ]
            yield family


def new_metrics(part: Part | None = None, **labels: str) -> Metrics:
    """Make the instruments of a process, all at zero."""
    return Metrics(part, labels)


def configure_logging(level: str, log_format: str, process: str) -> None:
    """Write log lines to stderr, one JSON object or one line of text each, those of libraries too.

    `level` and `log_format` come from the settings; every line says which `process` wrote it. May be called again;
    the last call counts.
    """

    def name_the_process(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        event["process"] = process
        return event

    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_the_job,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_the_process,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = _ToStderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(log_format)],
        )
    )
    root = logging.getLogger()
    for earlier in [known for known in root.handlers if isinstance(known, _ToStderr)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level)
    # It tells of every request as news, and the autoscaler makes one with every poll.
    logging.getLogger("httpx2").setLevel({"INFO": "WARNING"}.get(level, level))


def _name_the_job(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    job = find_current_job()
    if job is not None:
        event.setdefault("job_id", str(job.id))
        event.setdefault("attempt", job.attempt)
        event.setdefault("tenant", job.tenant)
        if job.trace is not None:
            event.setdefault("trace_id", trace_id_of(job.trace))
    return event


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Give the logger of a part: `log.info("a sentence", job_id=…)`."""
    return structlog.stdlib.get_logger(name)


class _ToStderr(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        # Looked up each time: whoever replaced sys.stderr since wants these lines too.
        self.stream = sys.stderr
        super().emit(record)


def _renderers(log_format: str) -> list[structlog.types.Processor]:
    if log_format == "text":
        # The default shows every local variable of every frame: secrets, and a second of processor time a traceback.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
