"""Recognises messages that are like one admitted before, byte for byte, but for their id, trace and signature."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from taskplatform.errors import InvalidInput
from taskplatform.ids import read_job_id
from taskplatform.job import Envelope
from taskplatform.payload import ORIGIN, SIGNATURE_HEADER, decode_body, seal, signed_text, trace_of

_MOST_SHAPES = 64
SIZES_BYTES = 12
"""Class, weight and size of the body, with which a content header begins (AMQP 0-9-1, section 2.3.5.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    envelope: Envelope
    id: slice
    signature: slice
    trace: slice | None
    between: tuple[tuple[slice, list[bytes]], ...]
    signed: tuple[bytes, bytes]


class Shapes:
    """The shapes of the messages that one worker has admitted.

    The id stands in what the signature covers exactly once, and whatever else decides about a job is covered too and
    does not vary: so only the id has to be put in to know what was signed, and what the message says.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._known: dict[int, list[_Shape]] = {}
        self._count = 0

    def recognise(self, header: bytes, body: bytes) -> Envelope | None:
        """Give the envelope of a message of a known shape and with a signature that fits; None is no verdict."""
        for shape in self._known.get(len(header), ()):
            job_id = header[shape.id]
            if all(header[part].split(job_id) == fixed for part, fixed in shape.between):
                return self._envelope(shape, job_id, header, body)
        return None

    def learn(self, header: bytes, headers: Mapping[str, Any], envelope: Envelope) -> None:
        """Remember the shape of an admitted message, given as its content header and what that says."""
        if headers.get("origin") != ORIGIN or envelope.due_at or envelope.expires_at:
            # Of other senders' messages no two are alike.
            return
        shape = _shape_of(header, headers, envelope)
        if shape is None:
            return
        if self._count == _MOST_SHAPES:
            self._known.clear()
            self._count = 0
        self._count += 1
        self._known.setdefault(len(header), []).append(shape)

    def _envelope(self, shape: _Shape, job_id: bytes, header: bytes, body: bytes) -> Envelope | None:
        before, after = shape.signed
        text, signature = before + job_id + after, header[shape.signature]
        if not any(hmac.compare_digest(signature, seal(text, body, key).encode()) for key in self._keys):
            return None
        trace = None if shape.trace is None else header[shape.trace]
        try:
            decode_body(body)
            return msgspec.structs.replace(
                shape.envelope,
                id=read_job_id(job_id.decode()),
                body=body.decode(),
                trace=None if trace is None else trace_of(trace.decode()),
            )
        except (InvalidInput, ValueError):
            return None


def _shape_of(header: bytes, headers: Mapping[str, Any], envelope: Envelope) -> _Shape | None:
    job_id = str(envelope.id).encode()
    signature = _place_of(str(headers.get(SIGNATURE_HEADER)), header)
    trace = None if envelope.trace is None else _place_of(envelope.trace, header)
    signed = signed_text(headers).split(job_id)
    first = header.find(job_id, SIZES_BYTES)
    if signature is None or (trace is None) is not (envelope.trace is None) or len(signed) != 2 or first < 0:
        return None
    others = sorted((place for place in (signature, trace) if place is not None), key=lambda place: place.start)
    starts = [SIZES_BYTES, *(place.stop for place in others)]
    ends = [*(place.start for place in others), len(header)]
    parts = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    outside = any(part.start <= first and first + len(job_id) <= part.stop for part in parts)
    if not outside or any(part.start > part.stop for part in parts):
        return None
    return _Shape(
        envelope=envelope,
        id=slice(first, first + len(job_id)),
        signature=signature,
        trace=trace,
        between=tuple((part, header[part].split(job_id)) for part in parts),
        signed=(signed[0], signed[1]),
    )


def _place_of(text: str, header: bytes) -> slice | None:
    part = text.encode()
    start = header.find(part, SIZES_BYTES)
    once = start >= 0 and header.find(part, start + 1) < 0
    return slice(start, start + len(part)) if once else None
