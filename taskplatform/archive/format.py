"""How the archive looks: names of objects, records, and the manifest of each object. Values in, values out.

An object is gzip (RFC 1952) of one JSON text a line: `{"job": {…}, "attempts": [{…}, …]}`, the columns of both by their
names. Its manifest is written last, so an object without one was never finished and does not count.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from taskplatform.ids import milliseconds_of

FORMAT = 1
OBJECT_SUFFIX = ".ndjson.gz"
MANIFEST_SUFFIX = ".manifest.json"
REST = "rest"
"""The part of jobs that no daily partition held."""
_MOST_NAMES = 100
_NAME = re.compile(
    r"(?P<stem>cluster-(?P<cluster>\d+)/(?P<part>\d{8}|rest)/(?P<sequence>\d{6,})-[0-9a-f]{16})"
    r"(?P<suffix>\.ndjson\.gz|\.manifest\.json)"
)


class Damaged(Exception):
    """An object is not what its name or its manifest says."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in one object: enough to know whether a search has to read it, and whether it is whole.

    `tenants` and `tasks` are None where there are too many to list; `states` counts jobs. The times are those of the
    jobs' creation and end.
    """

    format: int
    cluster: int
    part: str
    sequence: int
    object: str
    bytes: int
    sha256: str
    jobs: int
    attempts: int
    lowest_id: UUID
    highest_id: UUID
    first_created: datetime
    last_created: datetime
    first_ended: datetime
    last_ended: datetime
    states: dict[str, int]
    tenants: list[str] | None
    tasks: list[str] | None


class ArchivedJob(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of an ended job that a search looks at; the rest of them is in the line."""

    id: UUID
    series: int
    tenant: str
    task: str
    pool: str
    state: str
    attempt: int
    created_at: datetime
    ended_at: datetime


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One line, read as far as a search needs."""

    job: ArchivedJob
    attempts: list[msgspec.Raw]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a search looks for; None does not filter. `since` and `until` bound the jobs' creation."""

    id: UUID | None = None
    tenant: str | None = None
    task: str | None = None
    state: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def may_be_in_part(self, part: str) -> bool:
        """Tell from its name whether a part may hold such jobs."""
        begins = begin_of(part)
        if begins is None:
            return True
        if self.id is not None:
            return begins.date() == day_of(self.id)
        after = self.since is None or begins + timedelta(days=1) > self.since
        return after and (self.until is None or begins <= self.until)

    def may_be_in(self, manifest: Manifest) -> bool:
        """Tell from its manifest whether an object may hold such jobs."""
        return (
            (self.id is None or manifest.lowest_id <= self.id <= manifest.highest_id)
            and (self.tenant is None or manifest.tenants is None or self.tenant in manifest.tenants)
            and (self.task is None or manifest.tasks is None or self.task in manifest.tasks)
            and (self.state is None or self.state in manifest.states)
            and (self.since is None or manifest.last_created >= self.since)
            and (self.until is None or manifest.first_created <= self.until)
        )

    def is_met_by(self, job: ArchivedJob) -> bool:
        """Tell whether a job is one of those."""
        return (
            self.id in (None, job.id)
            and self.tenant in (None, job.tenant)
            and self.task in (None, job.task)
            and self.state in (None, job.state)
            and (self.since is None or job.created_at >= self.since)
            and (self.until is None or job.created_at <= self.until)
        )


class Packer:
    """Takes records in, compressed as they come, and gives an object with its manifest."""

    def __init__(self) -> None:
        self._packed = io.BytesIO()
        self._gzip = gzip.GzipFile(fileobj=self._packed, mode="wb", compresslevel=6, mtime=0, filename="")
        self._jobs: list[ArchivedJob] = []
        self._attempts = 0
        self.raw_bytes = 0

    def add(self, lines: Sequence[str]) -> None:
        """Take records in. Raises Damaged for what is no record."""
        for line in lines:
            # Postgres breaks the line between the elements of an array; within a text it writes \\n.
            raw = line.replace("\n", "").encode()
            record = read_record(raw)
            self._jobs.append(record.job)
            self._attempts += len(record.attempts)
            self._gzip.write(raw + b"\n")
            self.raw_bytes += len(raw) + 1

    def finish(self, cluster: int, part: str, sequence: int) -> tuple[bytes, Manifest]:
        """Give the object and its manifest; the same records give the same bytes under the same name."""
        self._gzip.close()
        packed = self._packed.getvalue()
        digest = hashlib.sha256(packed).hexdigest()
        stem = f"cluster-{cluster}/{part}/{sequence:06}-{digest[:16]}"
        ids, created, ended = zip(*((job.id, job.created_at, job.ended_at) for job in self._jobs), strict=True)
        return packed, Manifest(
            format=FORMAT,
            cluster=cluster,
            part=part,
            sequence=sequence,
            object=stem + OBJECT_SUFFIX,
            bytes=len(packed),
            sha256=digest,
            jobs=len(ids),
            attempts=self._attempts,
            lowest_id=min(ids),
            highest_id=max(ids),
            first_created=min(created),
            last_created=max(created),
            first_ended=min(ended),
            last_ended=max(ended),
            states=dict(sorted(Counter(job.state for job in self._jobs).items())),
            tenants=_names({job.tenant for job in self._jobs}),
            tasks=_names({job.task for job in self._jobs}),
        )


def manifest_name(manifest: Manifest) -> str:
    """Give the name of a manifest's own object."""
    return manifest.object.removesuffix(OBJECT_SUFFIX) + MANIFEST_SUFFIX


def write_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)


def read_manifest(name: str, content: bytes) -> Manifest:
    """Read a manifest. Raises Damaged for what is none, or speaks of another object than its name does."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"not a manifest: {error}") from None
    if manifest.format != FORMAT:
        raise Damaged(f"format {manifest.format} is not known here")
    if manifest_name(manifest) != name:
        raise Damaged(f"it speaks of {manifest.object}")
    return manifest


def kind_of(name: str) -> str | None:
    """Tell what an object is by its name: the suffix of an object or a manifest, None for what is not ours."""
    found = _NAME.fullmatch(name)
    return None if found is None else found["suffix"]


def read_object(manifest: Manifest, content: bytes) -> Iterator[bytes]:
    """Give the lines of an object, after it was compared with its manifest. Raises Damaged."""
    if len(content) != manifest.bytes or hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise Damaged(f"it is not what its manifest says: {len(content)} bytes, and {manifest.bytes} were written")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as lines:
            for line in lines:
                yield line.rstrip(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(f"it cannot be decompressed: {error}") from None


def read_record(line: bytes) -> Record:
    """Read one line. Raises Damaged."""
    try:
        return msgspec.json.decode(line, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"not a record: {error}") from None


def plain(line: bytes) -> dict[str, Any]:
    """Give a record with all it holds; body, result and errors as values instead of JSON texts."""
    record: dict[str, Any] = msgspec.json.decode(line)
    for columns in (record["job"], *record["attempts"]):
        for name in ("body", "result", "error"):
            if isinstance(columns.get(name), str):
                columns[name] = _value(columns[name])
    return record


def begin_of(part: str) -> datetime | None:
    """Tell when the day of a part begins, None for the REST. Raises Damaged for what is no part's name."""
    if part == REST:
        return None
    try:
        return datetime.strptime(part, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        raise Damaged(f"{part!r} is no day") from None


def day_of(job_id: UUID) -> date | None:
    """Tell on which day a job was handed in, by its id; None where the id has no time, or one that no date has."""
    if job_id.version != 7:
        return None
    try:
        return datetime.fromtimestamp(milliseconds_of(job_id) / 1000, UTC).date()
    except (OverflowError, ValueError, OSError):
        return None


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _names(found: set[str]) -> list[str] | None:
    return sorted(found) if len(found) <= _MOST_NAMES else None
