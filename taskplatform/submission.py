"""Turns what a caller sent into a job that can be stored, or says why not, before anything is batched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn
from uuid import UUID

import jsonschema_rs
import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from taskplatform import strict_json
from taskplatform.errors import InvalidInput, SettingsError
from taskplatform.job import NewJob, Priority, State
from taskplatform.payload import splice_body
from taskplatform.task import TaskSpec

LONGEST_SECONDS = 366 * 86_400
"""How far ahead a job may be due or expire."""
LONGEST_LIMIT_SECONDS = 7 * 86_400
MAX_ATTEMPTS = 1000
MAX_TAGS = 20
MAX_TAG_LENGTH = 64
MAX_KEY_LENGTH = 255
MAX_SCHEMA_ERRORS = 10

_Delay = Annotated[float, Meta(ge=0, le=LONGEST_SECONDS)]
_Deadline = Annotated[float, Meta(gt=0, le=LONGEST_SECONDS)]
_Limit = Annotated[float, Meta(gt=0, le=LONGEST_LIMIT_SECONDS)]
_Tag = Annotated[str, Meta(min_length=1, max_length=MAX_TAG_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Moment = Annotated[datetime, Meta(tz=True)]


class Submission(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """The body of `POST /v1/jobs`. What is left out, or null, is the task's own choice."""

    task: Annotated[str, Meta(min_length=1, max_length=200)]
    args: Raw | UnsetType = UNSET
    kwargs: Raw | UnsetType = UNSET
    pool: str | UnsetType | None = UNSET
    priority: Priority | UnsetType | None = UNSET
    delay_seconds: _Delay | UnsetType | None = UNSET
    run_at: _Moment | UnsetType | None = UNSET
    deadline_seconds: _Deadline | UnsetType | None = UNSET
    soft_limit_seconds: _Limit | UnsetType | None = UNSET
    hard_limit_seconds: _Limit | UnsetType | None = UNSET
    max_attempts: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)] | UnsetType | None = UNSET
    tags: Annotated[list[_Tag], Meta(max_length=MAX_TAGS)] | UnsetType | None = UNSET


class BatchItem(Submission, frozen=True, gc=False):
    """One item of `POST /v1/jobs:batch`."""

    idempotency_key: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_LENGTH)] | UnsetType | None = UNSET


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A well-formed submission: `args` and `kwargs` as understood, `body` with their JSON as it was sent."""

    wanted: Submission
    args: list[Any]
    kwargs: dict[str, Any]
    body: str

    @property
    def own_key(self) -> str | None:
        """The idempotency key that a batch's item brought along."""
        return _given(self.wanted.idempotency_key) if isinstance(self.wanted, BatchItem) else None


class Checker:
    """Checks submissions of one task: its pools, and its arguments against the schema that it announced."""

    def __init__(self, spec: TaskSpec) -> None:
        """Compile the schema. Raises SettingsError when the task announced one that is none."""
        self.spec = spec
        self._validator = None
        if spec.schema is not None:
            try:
                self._validator = jsonschema_rs.validator_for(dict(spec.schema))
            except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
                raise SettingsError(f"task {spec.name} announced a schema that is none: {error}") from None

    def check(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Raise InvalidInput unless the task takes these arguments."""
        bound = self.spec.bind(args, kwargs)
        if self._validator is not None and not self._validator.is_valid(bound):
            self._refuse(self._validator, bound, len(args))

    def _refuse(self, validator: jsonschema_rs.Validator, bound: dict[str, Any], given_by_position: int) -> NoReturn:
        by_position = self.spec.positional[:given_by_position]
        found = []
        for error in validator.iter_errors(bound):
            path = list(error.instance_path)
            if path and path[0] in by_position:
                where = strict_json.pointer("args", by_position.index(str(path[0])), *path[1:])
            else:
                where = strict_json.pointer("kwargs", *path)
            found.append((where, error.message[:200]))
            if len(found) == MAX_SCHEMA_ERRORS:
                break
        raise InvalidArguments(self.spec.name, found)


class InvalidArguments(InvalidInput):
    """The task does not take these arguments; `found` are pointers with what is wrong there."""

    def __init__(self, task: str, found: Sequence[tuple[str, str]]) -> None:
        where, detail = found[0]
        super().__init__(f"{task} does not take these arguments: {detail}", code="invalid_arguments", pointer=where)
        self.found = tuple(found)


def read(text: bytes) -> Request:
    """Read the body of a single submission, UTF-8 already. Raises InvalidInput."""
    return _read(text, _SINGLE)


def read_item(text: bytes) -> Request:
    """Read one item of a batch, UTF-8 already. Raises InvalidInput."""
    return _read(text, _ITEM)


def read_array(text: bytes) -> list[Raw]:
    """Cut a batch's JSON array into its items, unread. Raises InvalidInput."""
    try:
        return _ARRAY.decode(text)
    except RecursionError:
        raise InvalidInput(f"nested deeper than {strict_json.MAX_DEPTH}", code="too_deep") from None
    except msgspec.ValidationError:
        raise InvalidInput("a batch is a JSON array of submissions") from None
    except msgspec.DecodeError as error:
        raise InvalidInput(_malformed(error), code=strict_json.MALFORMED) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """For whom jobs are made, and where they may go."""

    tenant: str
    pools: Collection[str]
    trace: str | None = None


def new_job(
    request: Request, checker: Checker, caller: Caller, *, now: datetime, job_id: UUID, key: str | None
) -> NewJob:
    """Make the job that a submission asks for. Raises InvalidInput."""
    wanted, spec = request.wanted, checker.spec
    checker.check(request.args, request.kwargs)
    due_at, expires_at = _times(wanted, now)
    soft = _given(wanted.soft_limit_seconds) or spec.soft_limit_seconds
    hard = _given(wanted.hard_limit_seconds) or spec.hard_limit_seconds
    if soft is not None and hard is not None and soft >= hard:
        raise InvalidInput("soft_limit_seconds must be below hard_limit_seconds", pointer="/soft_limit_seconds")
    return NewJob(
        id=job_id,
        tenant=caller.tenant,
        task=spec.name,
        pool=_pool(spec.pool if wanted.pool is UNSET or wanted.pool is None else wanted.pool, caller.pools),
        body=request.body,
        priority=_given(wanted.priority) or spec.priority,
        state=State.QUEUED if due_at is None else State.SCHEDULED,
        due_at=due_at,
        expires_at=expires_at,
        max_attempts=_given(wanted.max_attempts) or spec.max_attempts,
        soft_limit_seconds=soft,
        hard_limit_seconds=hard,
        task_version=spec.version,
        tags=tuple(dict.fromkeys(_given(wanted.tags) or ())),
        trace=caller.trace,
        key=key,
        fingerprint=None if key is None else fingerprint(request),
    )


def fingerprint(request: Request) -> str:
    """Give the SHA-256 of what was asked for, whatever its spelling: spaces and the order of keys do not count."""
    wanted = request.wanted
    options = [_given(getattr(wanted, name)) for name in _OPTIONS]
    canonical = msgspec.json.encode([wanted.task, request.args, request.kwargs, options], order="deterministic")
    return hashlib.sha256(canonical).hexdigest()


def check_key(key: str) -> str:
    """Give the idempotency key back. Raises InvalidInput unless it is 1 to 255 visible ASCII characters."""
    if not _KEY.fullmatch(key):
        detail = f"an idempotency key is 1 to {MAX_KEY_LENGTH} visible ASCII characters"
        raise InvalidInput(detail, code="invalid_idempotency_key")
    return key


_SINGLE = msgspec.json.Decoder(Submission)
_ITEM = msgspec.json.Decoder(BatchItem)
_ARRAY = msgspec.json.Decoder(list[Raw])
_ARGS = msgspec.json.Decoder(list[Any])
_KWARGS = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder()
_OPTIONS = tuple(name for name in Submission.__struct_fields__ if name not in {"task", "args", "kwargs"})
_KEY = re.compile(r"[!-~]{1,255}")
_BYTE = re.compile(r"\(byte (\d+)\)")


def _read(text: bytes, decoder: msgspec.json.Decoder[Submission] | msgspec.json.Decoder[BatchItem]) -> Request:
    plain = strict_json.is_plain(text)
    if not plain:
        strict_json.check(text)
    try:
        wanted = decoder.decode(text)
    except RecursionError:
        raise InvalidInput(f"nested deeper than {strict_json.MAX_DEPTH}", code="too_deep") from None
    except msgspec.DecodeError as error:
        raise strict_json.decode_error(error, text) from None
    raw_args = b"[]" if wanted.args is UNSET else bytes(wanted.args)
    raw_kwargs = b"{}" if wanted.kwargs is UNSET else bytes(wanted.kwargs)
    args = _part(_ARGS, raw_args, "args")
    kwargs = _part(_KWARGS, raw_kwargs, "kwargs")
    if plain:
        arguments = _ENCODER.encode((args, kwargs))
        sent_once = strict_json.repeats_no_key(raw_args + raw_kwargs, arguments)
        if not sent_once or not strict_json.repeats_no_key(text, _ENCODER.encode(wanted)):
            strict_json.check(text)
    return Request(wanted=wanted, args=args, kwargs=kwargs, body=splice_body(raw_args.decode(), raw_kwargs.decode()))


def _part(decoder: msgspec.json.Decoder[Any], raw: bytes, name: str) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        found = strict_json.decode_error(error, raw)
        raise InvalidInput(found.detail, code=found.code, pointer=f"/{name}{found.pointer}") from None


def _times(wanted: Submission, now: datetime) -> tuple[datetime | None, datetime | None]:
    delay, run_at, deadline = _given(wanted.delay_seconds), _given(wanted.run_at), _given(wanted.deadline_seconds)
    due_at = None
    if run_at is not None:
        if delay is not None:
            raise InvalidInput("give delay_seconds or run_at, not both", pointer="/run_at")
        due_at = _utc(run_at)
        if (due_at - now).total_seconds() > LONGEST_SECONDS:
            raise InvalidInput(f"run_at is more than {LONGEST_SECONDS // 86_400} days ahead", pointer="/run_at")
    elif delay:
        due_at = now + timedelta(seconds=delay)
    if due_at is not None and due_at <= now:
        due_at = None
    expires_at = None if deadline is None else now + timedelta(seconds=deadline)
    if due_at is not None and expires_at is not None and expires_at <= due_at:
        raise InvalidInput("the deadline is before the job is due", pointer="/deadline_seconds")
    return due_at, expires_at


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput("run_at is no time that can be kept", pointer="/run_at") from None


def _pool(pool: str, pools: Collection[str]) -> str:
    if pool not in pools:
        raise InvalidInput(
            f"there is no such pool; there are: {', '.join(pools)}", code="unknown_pool", pointer="/pool"
        )
    return pool


def _given(value: Any) -> Any:
    return None if value is UNSET else value


def _malformed(error: msgspec.DecodeError) -> str:
    found = _BYTE.search(str(error))
    return f"malformed JSON (byte {found[1]})" if found else "malformed JSON"
