"""Bundles: short jobs of one kind in one signed message, opened again into their envelopes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from taskplatform.errors import InvalidInput
from taskplatform.job import Envelope, Reason
from taskplatform.payload import (
    SIGNATURE_HEADER,
    Kind,
    Message,
    Unfit,
    check_content,
    check_signature,
    decode_body,
    encode,
    kind_of,
    read,
    seal,
    signed_text,
    stamp_of,
    trace_of,
)
from taskplatform.task import MOST_BUNDLE_JOBS

JOBS_HEADER = "tp-jobs"
"""How many jobs a message carries; ordinary ones say nothing of it."""
MOST_BYTES = 96 * 1024
"""Of the body of a bundle."""


def gather(jobs: Sequence[Envelope], most: Callable[[str], int]) -> list[list[Envelope]]:
    """Part jobs into groups that may travel together, each in the order given; a group of one is an ordinary message.

    The jobs of a group are of one kind, at most `most(task)`, and their bundle's body has at most MOST_BYTES. A suspect
    goes alone, and so does what has no row yet, is due later or expires.
    """
    groups: list[list[Envelope]] = []
    growing: dict[Kind, _Growing] = {}
    for job in jobs:
        at_most = min(most(job.task), MOST_BUNDLE_JOBS) if _may_join(job) else 1
        if at_most < 2:
            groups.append([job])
            continue
        kind, size = kind_of(job), _size(job)
        group = growing.get(kind)
        if group is None or len(group.jobs) >= at_most or group.size + size > MOST_BYTES:
            group = growing[kind] = _Growing()
            groups.append(group.jobs)
        group.jobs.append(job)
        group.size += size
    return groups


def encode_group(jobs: Sequence[Envelope], key: bytes) -> Message:
    """Make the signed message of a group: of one job an ordinary one. Raises InvalidInput where they have no queue."""
    return encode(jobs[0], key) if len(jobs) == 1 else encode_bundle(jobs, key)


def encode_bundle(jobs: Sequence[Envelope], key: bytes) -> Message:
    """Make the signed message of at least two jobs of one group; its id is that of the first job."""
    first = jobs[0]
    stamp = stamp_of(kind_of(first))
    bundle_id = str(first.id)
    body = msgspec.json.encode([(job.id, job.trace, msgspec.Raw(job.body)) for job in jobs])
    before, after = stamp.signed
    text = _text(len(jobs), before + bundle_id.encode() + after)
    headers = {**stamp.headers, "id": bundle_id, JOBS_HEADER: len(jobs), SIGNATURE_HEADER: seal(text, body, key)}
    return Message(id=bundle_id, routing_key=stamp.routing_key, headers=headers, body=body, stamp=stamp)


def is_bundle(headers: Mapping[str, Any]) -> bool:
    """Tell whether a message calls itself a bundle."""
    return JOBS_HEADER in headers


def open_bundle(
    headers: Mapping[str, Any], body: bytes, properties: Mapping[str, Any], keys: Sequence[bytes]
) -> list[Envelope]:
    """Check a received bundle and give the envelopes of its jobs, in their order.

    Only the platform makes bundles, so one without a signature that fits one of `keys` never passes. Raises Unfit.
    """
    check_content(headers, properties)
    count = headers.get(JOBS_HEADER)
    if not isinstance(count, int) or not 2 <= count <= MOST_BUNDLE_JOBS:
        raise Unfit(Reason.MALFORMED, f"{JOBS_HEADER} is not a number from 2 to {MOST_BUNDLE_JOBS}")
    check_signature(headers, body, keys, lambda signed: _text(count, signed_text(signed)))
    try:
        jobs = _BODY.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unfit(Reason.MALFORMED, f"not the body of a bundle: {error}") from None
    if len(jobs) != count or str(jobs[0][0]) != headers.get("id"):
        raise Unfit(Reason.MALFORMED, "the bundle does not hold the jobs that it names")
    first = read(headers, bytes(jobs[0][2]))
    return [_envelope(first, *job) for job in jobs]


class _Growing:
    def __init__(self) -> None:
        self.jobs: list[Envelope] = []
        self.size = _AROUND_BUNDLE_BYTES


_AROUND_BUNDLE_BYTES = 2
# Id, a trace, and what JSON puts around them and a body.
_AROUND_BODY_BYTES = 100
_BODY = msgspec.json.Decoder(list[tuple[UUID, str | None, msgspec.Raw]])


def _size(job: Envelope) -> int:
    body = job.body
    return _AROUND_BODY_BYTES + (len(body) if body.isascii() else len(body.encode()))


def _may_join(job: Envelope) -> bool:
    return not job.suspect and job.series is not None and job.due_at is None and job.expires_at is None


def _text(jobs: int, ordinary: bytes) -> bytes:
    # What is signed of an ordinary message begins with "1": who knows no bundles takes none for one.
    return b"2%d%b" % (jobs, ordinary[1:])


def _envelope(first: Envelope, job_id: UUID, trace: str | None, body: msgspec.Raw) -> Envelope:
    try:
        decode_body(bytes(body))
        text = bytes(body).decode()
    except (InvalidInput, UnicodeDecodeError) as error:
        raise Unfit(Reason.MALFORMED, f"a job of the bundle has no task body: {error}") from None
    return msgspec.structs.replace(first, id=job_id, body=text, trace=trace_of(trace))
