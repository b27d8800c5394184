"""The spans of the jobs of a worker: claim, run and record, made in the parent out of what its turns say anyway."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from taskplatform.job import AttemptEnd, Envelope
from taskplatform.store.working import Claimed, Ended, Ending, GivenBack, PutOff
from taskplatform.telemetry import Metrics
from taskplatform.tracing import Fact, Step, StepKind, Tracer, is_kept, run_span_id


class Spans:
    """Takes committed turns. A child makes no span, and sends none: it may be killed or recycled at any moment.

    A run is told of once it is recorded; one that had lost its job by then is not.
    """

    def __init__(self, tracer: Tracer, metrics: Metrics) -> None:
        self._tracer = tracer
        self._metrics = metrics

    def turned(
        self, began: float, recorded: Sequence[tuple[Envelope, Ending]], claimed: Sequence[tuple[Envelope, Claimed]]
    ) -> None:
        """Take in the turn that was committed, and that the store was asked for when it `began`, in epoch seconds."""
        ended = time.time()
        started = [(envelope, claim) for envelope, claim in claimed if is_kept(envelope.trace)]
        if started:
            self._tracer.note_all(_claim(envelope, claim, began, ended, len(claimed)) for envelope, claim in started)
            self._point_to_waits(started)
        over = [(envelope, ending) for envelope, ending in recorded if is_kept(envelope.trace)]
        if over:
            for envelope, ending in over:
                if not isinstance(ending, GivenBack):
                    self._ran(envelope, ending)
            self._tracer.note_all(_record(envelope, ending, began, ended, len(recorded)) for envelope, ending in over)

    def _point_to_waits(self, started: Sequence[tuple[Envelope, Claimed]]) -> None:
        for envelope, claim in started:
            if envelope.trace is not None:
                self._metrics.job_wait_seconds.labels(envelope.priority).point(claim.waited_seconds, envelope.trace)

    def _ran(self, envelope: Envelope, ending: Ended | PutOff) -> None:
        self._tracer.note(
            Step(
                name=f"run {envelope.task}",
                job=envelope,
                began=ending.started,
                ended=ending.stopped,
                kind=StepKind.CONSUMER,
                facts={"attempt": ending.attempt, "attempt.end": ending.end.value},
                trouble=None if ending.end is AttemptEnd.SUCCEEDED else _trouble(ending),
                span_id=run_span_id(envelope.id, ending.attempt),
            )
        )
        if envelope.trace is not None:
            histogram = self._metrics.job_run_seconds.labels(self._metrics.task_label(envelope.task))
            histogram.point(ending.stopped - ending.started, envelope.trace)


def _trouble(ending: Ended | PutOff) -> str:
    # The message alone: a traceback shows code, and belongs to the job's record.
    error = msgspec.json.decode(ending.error) if ending.error else {}
    return str(error.get("message") or error.get("type") or ending.end.value)


def _claim(envelope: Envelope, claim: Claimed, began: float, ended: float, together: int) -> Step:
    facts: dict[str, Fact] = {
        "attempt": claim.attempt,
        "batch.jobs": together,
        "waited_seconds": claim.waited_seconds,
        "suspect": claim.suspect,
    }
    return Step(name="claim", job=envelope, began=began, ended=ended, facts=facts)


def _record(envelope: Envelope, ending: Ending, began: float, ended: float, together: int) -> Step:
    match ending:
        case Ended(state=state):
            then = state.value
        case PutOff():
            then = "retrying"
        case GivenBack():
            then = "given back"
    facts: dict[str, Fact] = {"attempt": ending.attempt, "batch.jobs": together, "job.state": then}
    return Step(name="record", job=envelope, began=began, ended=ended, facts=facts)
