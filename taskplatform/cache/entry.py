"""What is kept of a read, for how long, and how it is written."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import msgspec

from taskplatform.freshness import Position
from taskplatform.ids import milliseconds_of
from taskplatform.job import Job

FORMAT = 2
"""Goes up with every change of what an entry or a job consists of: code of another release does not see these."""
MOST_BYTES = 65_536
"""An entry that is larger is not kept."""
SETTLED_SECONDS = 3600.0
LIVE_SECONDS = 2.0
ABSENT_SECONDS = 1.0
"""How long entries are kept at most: of a job that never changes, of any other, and of one that is not there."""
LEAST_SHARE = 0.75
"""The share of that time for which an entry is kept at least: what was filled at once does not expire at once."""


class Entry(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What one read found out about one id for one tenant; `job` is None where this tenant has none of that id.

    Everything up to `since` is in it, which is None where nothing can be said. Nothing after `until` is, which is None
    where nobody keeps count.
    """

    tenant: str
    id: UUID
    job: Job | None
    since: Position | None
    until: Position | None


def key_of(tenant: str, job_id: UUID) -> str:
    """Name the place of an entry: no tenant's is another's."""
    return f"tp:job:{FORMAT}:{job_id}:{tenant}"


def encode(entry: Entry) -> bytes:
    """Write an entry."""
    return _ENCODER.encode(entry)


def decode(value: bytes, tenant: str, job_id: UUID) -> Entry | None:
    """Read the entry that stood under the key of this tenant and id; None for anything else."""
    try:
        entry = _DECODER.decode(value)
    except msgspec.MsgspecError:
        return None
    return entry if (entry.tenant, entry.id) == (tenant, job_id) else None


def keep_seconds(entry: Entry, now: datetime, retention: timedelta, random: Random) -> float:
    """Tell how long an entry is worth keeping; 0 for one that could be shown to nobody."""
    if entry.job is not None and entry.job.settled:
        longest = min(SETTLED_SECONDS, (kept_until(entry.job, retention) - now).total_seconds())
    elif entry.since is None:
        return 0.0
    else:
        longest = ABSENT_SECONDS if entry.job is None else LIVE_SECONDS
    return max(longest, 0.0) * random.uniform(LEAST_SHARE, 1.0)


def kept_until(job: Job, retention: timedelta) -> datetime:
    """Tell until when the row of an ended job is there for sure."""
    made = job.created_at
    if job.id.version == 7:
        # By the time in their ids rows are dropped; the row itself may have been made later.
        made = min(made, datetime.fromtimestamp(milliseconds_of(job.id) / 1000, made.tzinfo))
    return made + retention


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Entry)
