"""What the trace of a job is made of: contexts (W3C `traceparent`), steps that become spans, and who takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Protocol
from uuid import UUID

import msgspec

Fact = str | int | float | bool
MOST_LINKS = 128
MOST_TROUBLE = 1000
"""How many characters of a step's trouble its span has."""


class StepKind(StrEnum):
    """What a step is to those before and after it, in the words of OpenTelemetry."""

    INTERNAL = "internal"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Traced(Protocol):
    """What a step is about: a job on its way, or its message. `trace` is the context in which it was handed in."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def task(self) -> str:
        """What it runs."""

    @property
    def tenant(self) -> str:
        """Whose it is."""

    @property
    def pool(self) -> str:
        """Where it runs."""

    @property
    def trace(self) -> str | None:
        """Its context, None where it has none."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done to a job from `began` to `ended`, in epoch seconds; `trouble` says how it failed.

    `span_id` is set where somebody has heard of this step before it ended.
    """

    name: str
    job: Traced
    began: float
    ended: float
    kind: StepKind = StepKind.INTERNAL
    facts: Mapping[str, Fact] = {}
    trouble: str | None = None
    span_id: int | None = None


class Serving(Protocol):
    """A request that is being answered."""

    @property
    def traceparent(self) -> str:
        """The context that everything goes on in that is done for this request."""

    def end(self, route: str, status: int) -> None:
        """Note the answer."""


class Tracer(Protocol):
    """Who takes spans; nothing here waits, raises, or is called from more than one thread."""

    def serve(self, method: str, traceparent: str | None) -> Serving:
        """Begin to answer a request of a caller in this context. Whether a new trace is kept is decided here."""

    def note(self, step: Step) -> None:
        """Take a step of one job, if the job's trace is kept."""

    def note_all(self, steps: Iterable[Step]) -> None:
        """Take steps that were one deed for many jobs: each is in its own job's trace, and linked to the first."""

    def close(self) -> None:
        """Send what is left, within a few seconds."""


def is_kept(trace: str | None) -> bool:
    """Tell whether a context belongs to a trace that is kept."""
    return trace is not None and int(trace[-2:], 16) & 1 == 1


def trace_id_of(trace: str) -> str:
    """Give the id of the trace that a context belongs to."""
    return trace[3:35]


def run_span_id(job_id: UUID, attempt: int) -> int:
    """Give the id of the span of an attempt: whoever runs it knows it before it ends, and nobody has to remember it."""
    text = job_id.bytes + attempt.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") or 1


def run_context(trace: str, job_id: UUID, attempt: int) -> str:
    """Give the context inside an attempt of a job that was handed in in this one."""
    return f"{trace[:36]}{run_span_id(job_id, attempt):016x}{trace[52:]}"
