"""Job ids: UUIDv7 (RFC 9562) whose 12 `rand_a` bits say where the job lives."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from dataclasses import dataclass
from uuid import UUID, SafeUUID

REGIONS = 16
SHARDS = 256
_VERSION_7 = 0x7 << 76
_VARIANT = 0x2 << 62
_RANDOM_B_BITS = 62
# Its own, as programs seed the common one to repeat their runs; a forked process begins anew.
_chance = random.Random()
os.register_at_fork(after_in_child=_chance.seed)
_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class JobId(UUID):
    """A UUID that keeps its text: whoever moves many jobs writes each id several times, and pays for each digit."""

    __slots__ = ("_text",)
    _text: str

    def __str__(self) -> str:
        """Give the canonical text."""
        try:
            return self._text
        except AttributeError:
            text = UUID.__str__(self)
            object.__setattr__(self, "_text", text)
            return text


def _job_id(number: int) -> JobId:
    # As UUID's constructor does it, which tells many forms of input apart first, and takes as long as a short job.
    made: JobId = object.__new__(JobId)
    object.__setattr__(made, "int", number)
    object.__setattr__(made, "is_safe", SafeUUID.unknown)
    return made


def read_job_id(text: str) -> JobId:
    """Read the canonical text of an id. Raises ValueError for any other."""
    if not _CANONICAL.fullmatch(text):
        raise ValueError("not the canonical text of a UUID")
    made = _job_id(int(text.replace("-", ""), 16))
    object.__setattr__(made, "_text", text)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Locator:
    """Where a job lives: region (0 to 15) and logical shard (0 to 255)."""

    region: int
    shard: int


def new_job_id(locator: Locator, *, milliseconds: int | None = None) -> JobId:
    """Make a UUIDv7 that carries `locator`; `milliseconds` since the epoch default to now."""
    if milliseconds is None:
        milliseconds = time.time_ns() // 1_000_000
    # Unique, not secret: what an id names is shown to its tenant alone.
    random_b = _chance.getrandbits(_RANDOM_B_BITS)
    rand_a = locator.region << 8 | locator.shard
    return _job_id((milliseconds & 0xFFFF_FFFF_FFFF) << 80 | _VERSION_7 | rand_a << 64 | _VARIANT | random_b)


def locate(job_id: UUID) -> Locator:
    """Tell a job's home from its id alone.

    Ids of any other version come from plain Celery producers; their shard is a hash of the id, their region 0.
    """
    if job_id.version == 7:
        rand_a = job_id.int >> 64 & 0xFFF
        return Locator(region=rand_a >> 8, shard=rand_a & 0xFF)
    return Locator(region=0, shard=hashlib.sha256(job_id.bytes).digest()[0])


def shard_of_key(tenant: str, key: str) -> int:
    """Tell the shard of a keyed job, so that one unique index decides about (tenant, key).

    The jobs of a batch, whose keys are the batch's with `#` and a number behind it, share the shard of the batch's.
    """
    stem, mark, number = key.rpartition("#")
    of_batch = mark and number.isascii() and number.isdigit()
    return hashlib.sha256(f"{tenant}\0{stem if of_batch else key}".encode()).digest()[0]


def lowest_id_at(milliseconds: int) -> UUID:
    """Give the smallest UUID with that time, the lower bound of a partition or of a time filter."""
    return UUID(int=milliseconds << 80)


def milliseconds_of(job_id: UUID) -> int:
    """Read the creation time of a UUIDv7 in milliseconds since the epoch."""
    return job_id.int >> 80
