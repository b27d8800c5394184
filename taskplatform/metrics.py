"""Every metric of the platform as data: name, kind, labels, buckets, help, and which processes show it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Kind(StrEnum):
    """How a metric behaves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Part(StrEnum):
    """A kind of process that shows metrics."""

    API = "api"
    WORKER = "worker"
    DISPATCHER = "dispatcher"
    AUTOSCALER = "autoscaler"
    EXPORTER = "exporter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is known of a metric before anything is measured; `buckets` are upper bounds."""

    kind: Kind
    parts: tuple[Part, ...]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)

_ALL = tuple(Part)
_PUBLISHERS = (Part.API, Part.DISPATCHER)
_LOOPS = (Part.API, Part.DISPATCHER, Part.AUTOSCALER, Part.EXPORTER)
_ROLES = (Part.DISPATCHER, Part.AUTOSCALER, Part.EXPORTER)
_TRACED = (Part.API, Part.WORKER, Part.DISPATCHER)


def _counter(parts: tuple[Part, ...], text: str, *labels: str) -> Metric:
    return Metric(kind=Kind.COUNTER, parts=parts, help=text, labels=labels)


def _gauge(parts: tuple[Part, ...], text: str, *labels: str) -> Metric:
    return Metric(kind=Kind.GAUGE, parts=parts, help=text, labels=labels)


def _histogram(parts: tuple[Part, ...], text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(kind=Kind.HISTOGRAM, parts=parts, help=text, labels=labels, buckets=buckets)


def _watched(text: str, *labels: str) -> Metric:
    return _gauge((Part.EXPORTER,), text, *labels)


_SHARED = {
    "tp_build_info": _gauge(_ALL, "1, with the version that runs.", "version"),
    "tp_mode": _gauge(_ALL, "1 while the component cannot be used by this process, else 0.", "component"),
    "tp_event_loop_lag_seconds": _gauge(_LOOPS, "Longest time in the last 15 s that the event loop was late."),
    "tp_role_rounds_total": _counter(_ROLES, "Rounds that a background role has ended, failed ones too.", "role"),
    "tp_role_errors_total": _counter(_ROLES, "Rounds of a background role that failed and were tried again.", "role"),
    "tp_role_round_age_seconds": _gauge(_ROLES, "Time since a background role ended its last round.", "role"),
}
_SPANS = {
    "tp_spans_total": _counter(
        _TRACED,
        "Spans by what became of them: sent, failed (the collector did not take them), dropped (too many waited).",
        "outcome",
    ),
}
_API = {
    "tp_jobs_submitted_total": _counter((Part.API,), "Jobs accepted by this process.", "task", "pool"),
    "tp_intake_batch_size": _histogram((Part.API,), "Jobs stored by one commit of the intake.", SIZES),
    "tp_publish_seconds": _histogram(_PUBLISHERS, "Time until the broker had answered for a whole batch.", FAST),
    "tp_publish_unconfirmed_total": _counter(
        _PUBLISHERS, "Messages that the broker did not confirm in time; the relay publishes them again."
    ),
    "tp_http_requests_total": _counter(
        (Part.API,), "HTTP requests answered, by route template and status.", "route", "status"
    ),
    "tp_cache_reads_total": _counter(
        (Part.API,), "Reads of jobs by id: hit or miss in the cache, or joined to somebody else's read.", "outcome"
    ),
    "tp_http_request_seconds": _histogram((Part.API,), "Time to answer one HTTP request.", FAST, "route"),
}
_DISPATCHER = {
    "tp_jobs_released_total": _counter(
        (Part.DISPATCHER,), "Jobs queued because their gate opened: time or queue_full.", "gate"
    ),
    "tp_outbox_relayed_total": _counter((Part.DISPATCHER,), "Outbox rows that the relay took over and settled."),
    "tp_jobs_republished_total": _counter(
        (Part.DISPATCHER,), "Queued jobs published again because their queue was empty."
    ),
    "tp_jobs_rescued_total": _counter(
        (Part.DISPATCHER,), "Jobs taken back from vanished workers, by the state they went to.", "state"
    ),
    "tp_dead_letters_buried_total": _counter(
        (Part.DISPATCHER,), "Messages moved from the broker into the dead letters.", "reason"
    ),
    "tp_bundles_opened_total": _counter(
        (Part.DISPATCHER,), "Bundles out of the dead-letter queues whose jobs were published again, each by itself."
    ),
    "tp_archive_jobs_total": _counter((Part.DISPATCHER,), "Ended jobs that went into the archive."),
    "tp_archive_objects_total": _counter((Part.DISPATCHER,), "Objects written to the archive, manifests not counted."),
    "tp_archive_bytes_total": _counter((Part.DISPATCHER,), "Bytes of these objects, compressed."),
    "tp_archive_failures_total": _counter(
        (Part.DISPATCHER,), "Rounds in which jobs past their time were kept for want of the archive."
    ),
    "tp_archive_failing_seconds": _gauge(
        (Part.DISPATCHER,), "How long jobs past their time have been kept for want of the archive, 0 if none.", "role"
    ),
    "tp_jobs_expired_total": _counter((Part.DISPATCHER,), "Jobs whose deadline passed before they started."),
}
_WORKER = {
    "tp_jobs_finished_total": _counter(
        (Part.WORKER,), "Attempts recorded by this worker, by how they ended.", "task", "outcome"
    ),
    "tp_jobs_ended_total": _counter(
        (Part.WORKER,), "Jobs that this worker brought to their end: succeeded or dead.", "task", "state"
    ),
    "tp_job_run_seconds": _histogram((Part.WORKER,), "Time that one attempt ran.", LONG, "task"),
    "tp_job_wait_seconds": _histogram(
        (Part.WORKER,), "Time that a claimed job had been queued, by the clock of Postgres.", LONG, "priority"
    ),
    "tp_jobs_claimed_total": _counter((Part.WORKER,), "Attempts that this worker started to hold."),
    "tp_worker_turn_jobs": _histogram((Part.WORKER,), "Jobs ended and claimed in one commit of a worker.", SIZES),
    "tp_worker_slots": _gauge((Part.WORKER,), "Jobs that this worker can run at once."),
    "tp_worker_jobs": _gauge(
        (Part.WORKER,), "Jobs at hand: waiting (fetched, not claimed) and taken (claimed, not ended).", "stage"
    ),
}
_AUTOSCALER = {
    "tp_pool_workers": _gauge(
        (Part.AUTOSCALER,),
        "Workers of a pool: running, starting, draining, silent, and how many are desired.",
        "pool",
        "state",
    ),
    "tp_pool_slots": _gauge(
        (Part.AUTOSCALER,), "Slots that a pool needs: to keep up with arrivals, to drain what waits.", "pool", "kind"
    ),
    "tp_scale_decisions_total": _counter(
        (Part.AUTOSCALER,), "Decisions of the autoscaler, by what decided.", "pool", "reason"
    ),
    "tp_worker_seconds_total": _counter(
        (Part.AUTOSCALER,), "Time that workers of a pool existed, as the autoscaler saw them.", "pool"
    ),
    "tp_autoscaler_active": _gauge((Part.AUTOSCALER,), "1 in the autoscaler that holds the lease, else 0."),
}
_EXPORTER = {
    "tp_jobs": _watched("Live jobs by state.", "pool", "state"),
    "tp_jobs_blocked": _watched("Live jobs that a gate holds back.", "pool", "gate"),
    "tp_queue_oldest_age_seconds": _watched(
        "Time that the oldest job that may run has waited, queued or for room in its queue.", "pool"
    ),
    "tp_dispatch_lag_seconds": _watched(
        "Time since the most overdue scheduled or retrying job was due; 0 when none is.", "pool"
    ),
    "tp_dead_letters": _watched("Dead letters that nobody has replayed.", "pool", "reason"),
    "tp_census_seconds": _watched("Time that the last count of all live jobs and dead letters took."),
    "tp_queue_messages": _watched(
        "Messages, each of one job or a bundle, that wait in a work queue.", "pool", "priority"
    ),
    "tp_dead_queue_messages": _watched("Messages that wait in a dead-letter queue for the undertaker.", "pool"),
    "tp_outbox_rows": _watched("Rows in the outbox, each for a batch of jobs."),
    "tp_outbox_jobs": _watched("Jobs in the outbox: their messages are not known to be in the broker."),
    "tp_outbox_oldest_age_seconds": _watched("Age of the oldest outbox row, 0 when there is none."),
    "tp_workers": _watched("Workers whose lease holds, ready or draining.", "pool", "state"),
    "tp_ready_slots": _watched("Jobs that the ready workers of a pool can run at once.", "pool"),
    "tp_jobs_unaccounted": _watched(
        "Jobs, at least so many, in none of outbox, broker, lease, waiting and ended; they lack a message or a worker.",
        *("pool", "lacks"),
    ),
    "tp_replica_lag_seconds": _watched("How far the replay of a standby is behind, in time.", "replica"),
    "tp_replica_lag_bytes": _watched("How far the replay of a standby is behind, in write-ahead log.", "replica"),
    "tp_postgres_sessions": _watched("Sessions on the platform's database, by what they do.", "state"),
    "tp_postgres_oldest_transaction_seconds": _watched("Age of the oldest transaction on the platform's database."),
    "tp_canary_jobs_total": _counter(
        (Part.EXPORTER,), "Canaries by the end of their trip: arrived, late, failed, refused.", "pool", "outcome"
    ),
    "tp_canary_seconds": _histogram(
        (Part.EXPORTER,), "Time of a canary's trip by step: accept, start, run, and total.", LONG, "pool", "step"
    ),
    "tp_canary_last_arrival_timestamp_seconds": _watched("When a canary arrived last, in Unix time.", "pool"),
}

METRICS: Final = MappingProxyType(_SHARED | _SPANS | _API | _DISPATCHER | _WORKER | _AUTOSCALER | _EXPORTER)
"""Every metric of the platform by its full name; `Metrics` has one attribute for each, without the prefix `tp_`."""
