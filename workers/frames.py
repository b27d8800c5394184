"""What parent and child say to each other over their socket: length-prefixed MessagePack."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from taskplatform.job import Failed, Failure, Outcome, Succeeded, Trouble
from workers.capture import Caught
from workers.held import Held

_LENGTH = struct.Struct("=I")


class JobFrame(msgspec.Struct, array_like=True, frozen=True):
    """A job as its child needs it."""

    task: str
    id: str
    attempt: int
    failures: int
    tenant: str
    body: str
    queue: str
    soft_limit_seconds: float | None
    hard_limit_seconds: float | None
    trace: str | None


class ChunkFrame(msgspec.Struct, array_like=True, frozen=True):
    """Some jobs to run one after the other."""

    number: int
    jobs: list[JobFrame]


class OutcomeFrame(msgspec.Struct, array_like=True, frozen=True):
    """How one job of a chunk ended: `result` or `trouble`. Times are epoch seconds, `seconds` is how long it ran."""

    chunk: int
    index: int
    started: float
    stopped: float
    seconds: float
    result: str | None = None
    trouble: str | None = None
    error_types: list[str] = []
    message: str = ""
    traceback: str = ""
    after_seconds: float | None = None


class Report(msgspec.Struct, array_like=True, frozen=True):
    """What a child says: it is `up`, a chunk is `done`, or here is an `outcome` too large for the shared memory."""

    kind: Literal["up", "done", "outcome"]
    chunk: int = 0
    outcome: OutcomeFrame | None = None


def job_frame(held: Held) -> JobFrame:
    """Give what a child needs of a job."""
    envelope = held.envelope
    return JobFrame(
        task=envelope.task,
        id=str(envelope.id),
        attempt=held.attempt,
        failures=held.failures,
        tenant=envelope.tenant,
        body=envelope.body,
        queue=f"jobs.{envelope.pool}.{envelope.priority}",
        soft_limit_seconds=held.soft_limit_seconds,
        hard_limit_seconds=held.hard_limit_seconds,
        trace=envelope.trace,
    )


def outcome_of(frame: OutcomeFrame | Caught) -> Outcome:
    """Give the outcome that is reported."""
    if frame.trouble is None:
        return Succeeded(result=frame.result or "null")
    return Failed(
        failure=Failure(
            trouble=Trouble(frame.trouble),
            error_types=tuple(frame.error_types),
            message=frame.message,
            traceback=frame.traceback,
            after_seconds=frame.after_seconds,
        )
    )


def pack(message: Any) -> bytes:
    """Write one frame."""
    payload = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(payload)) + payload


def size_of(prefix: bytes | bytearray) -> int:
    """Read the length that precedes a frame."""
    size: int = _LENGTH.unpack(prefix)[0]
    return size


PREFIX_BYTES = _LENGTH.size


def unpack_all(buffer: bytearray) -> Iterator[bytes]:
    """Take every whole frame off the front of a buffer."""
    at = 0
    while len(buffer) - at >= PREFIX_BYTES:
        end = at + PREFIX_BYTES + size_of(buffer[at : at + PREFIX_BYTES])
        if len(buffer) < end:
            break
        yield bytes(buffer[at + PREFIX_BYTES : end])
        at = end
    del buffer[:at]
