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
from typing import Annotated, Any
from uuid import UUID

import msgspec

from taskplatform.ids import milliseconds_of

FORMAT = 1
OBJECT_SUFFIX = ".ndjson.gz"
MANIFEST_SUFFIX = ".manifest.json"
REST = "rest"
"""The part of jobs that no daily partition held."""
MOST_LINES_BYTES = 128 * 1024 * 1024
"""So much, and no more, is read out of one object: what retention writes has 16 MiB, and a few jobs more."""
_MOST_NAMES = 100
# The time in an id is of the clock of whoever made it, that of a job's creation of the database's.
_CLOCKS = timedelta(days=1)
# A value is shown if it could be nested so much more deeply: whoever writes it goes deeper than whoever read it.
_MARGIN = 20
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
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
    first_created: _Moment
    last_created: _Moment
    first_ended: _Moment
    last_ended: _Moment
    states: dict[str, int]
    tenants: list[str] | None
    tasks: list[str] | None

    def __post_init__(self) -> None:
        """Raise OverflowError for times that UTC does not have."""
        _refuse_without_utc(self.first_created, self.last_created, self.first_ended, self.last_ended)


class ArchivedJob(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of an ended job that a search looks at; the rest of them is in the line."""

    id: UUID
    series: int
    tenant: str
    task: str
    pool: str
    state: str
    attempt: int
    created_at: _Moment
    ended_at: _Moment

    def __post_init__(self) -> None:
        """Raise OverflowError for times that UTC does not have."""
        _refuse_without_utc(self.created_at, self.ended_at)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One line, read as far as a search needs."""

    job: ArchivedJob
    attempts: list[dict[str, msgspec.Raw]]


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
        """Tell from its name whether a part may hold such jobs. Raises Damaged for what is no part's name.

        A part goes by the time in the ids, and a job's creation may be much later: the broker may have kept its message
        while the database was away. So `since` rules out no part; the manifests know exactly.
        """
        begins = begin_of(part)
        if begins is None:
            return True
        if self.id is not None:
            return begins.date() == day_of(self.id)
        return self.until is None or begins - self.until <= _CLOCKS

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
    except _UNREADABLE as error:
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
    """Give the lines of an object, after it was compared with its manifest: one for each of its jobs. Raises Damaged.

    A few bytes of gzip may stand for any number, so no more than MOST_LINES_BYTES are made of them.
    """
    if len(content) != manifest.bytes or hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise Damaged(f"it is not what its manifest says: {len(content)} bytes, and {manifest.bytes} were written")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
            yield from _lines(unpacked, manifest.jobs)
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(f"it cannot be decompressed: {error}") from None


def read_record(line: bytes) -> Record:
    """Read one line. Raises Damaged."""
    try:
        return msgspec.json.decode(line, type=Record)
    except _UNREADABLE as error:
        raise Damaged(f"not a record: {error}") from None


def plain(line: bytes) -> dict[str, Any]:
    """Give a record with all it holds; body, result and errors as values instead of JSON texts. Raises Damaged.

    A text whose value is nested too deeply to be written again stays a text.
    """
    try:
        record: dict[str, Any] = msgspec.json.decode(line)
    except _UNREADABLE as error:
        raise Damaged(f"not a record: {error}") from None
    if not _can_be_written(record):
        raise Damaged("a record that is nested too deeply")
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


def _lines(unpacked: gzip.GzipFile, jobs: int) -> Iterator[bytes]:
    left, lines = MOST_LINES_BYTES, 0
    while line := unpacked.readline(left + 1):
        left, lines = left - len(line), lines + 1
        if left < 0:
            raise Damaged(f"more than {MOST_LINES_BYTES} bytes come out of it")
        if lines > jobs:
            break
        yield line.rstrip(b"\n")
    if lines != jobs:
        raise Damaged(f"its manifest says {jobs} jobs, and it has {'more' if lines > jobs else lines}")


def _refuse_without_utc(*times: datetime) -> None:
    for each in times:
        each.astimezone(UTC)


def _value(text: str) -> Any:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return value if _can_be_written(value) else text


def _can_be_written(value: Any) -> bool:
    for _ in range(_MARGIN):
        value = [value]
    try:
        msgspec.json.encode(value)
    except RecursionError:
        return False
    return True


def _names(found: set[str]) -> list[str] | None:
    return sorted(found) if len(found) <= _MOST_NAMES else None
