"""How far a long job has come: kept with the job, there for its next attempt, gone when the job ends.

A checkpoint is any value with a JSON form, of at most MOST_BYTES. Outside of a running job, where a task is called like
any function, there is none and nothing is kept.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar, overload

import msgspec

from taskplatform import strict_json
from taskplatform.errors import InvalidInput, TaskplatformError
from taskplatform.task import CurrentJob, Desk, find_current_job

MOST_BYTES = 65_536
"""The longest checkpoint, as JSON."""

T = TypeVar("T")


@overload
def load() -> Any: ...


@overload
def load(kind: type[T]) -> T | None: ...


def load(kind: Any = Any) -> Any:
    """Give what an earlier attempt of this job has saved last, as a `kind`; None when there is nothing.

    Raises InvalidInput when it is no `kind`, and AttemptLost. Waits while Postgres is away.
    """
    job = find_current_job()
    return None if job is None else _read(_blocking(job).ask(job, None), kind)


@overload
async def load_async() -> Any: ...


@overload
async def load_async(kind: type[T]) -> T | None: ...


async def load_async(kind: Any = Any) -> Any:
    """Do as `load`, in a coroutine."""
    job = find_current_job()
    return None if job is None else _read(await _desk(job).ask_async(job, None), kind)


def save(value: object) -> None:
    """Keep a value in place of the last one: when this returns, it outlives this process.

    Raises InvalidInput for a value without a JSON form and for one that is too large, and AttemptLost when the job was
    cancelled or went to another worker meanwhile: then nothing is kept. Waits while Postgres is away.
    """
    text = _written(value)
    job = find_current_job()
    if job is not None:
        _blocking(job).ask(job, text)


async def save_async(value: object) -> None:
    """Do as `save`, in a coroutine."""
    text = _written(value)
    job = find_current_job()
    if job is not None:
        await _desk(job).ask_async(job, text)


def draining() -> bool:
    """Tell whether the worker is about to end: a job that lasts longer had better save and raise HandBack. Cheap."""
    job = find_current_job()
    return job is not None and job.desk is not None and job.desk.draining


def _desk(job: CurrentJob) -> Desk:
    if job.desk is None:
        raise TaskplatformError("this job runs where no checkpoints are kept")
    return job.desk


def _blocking(job: CurrentJob) -> Desk:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _desk(job)
    raise TaskplatformError("on an event loop, await checkpoint.load_async() and checkpoint.save_async()")


def _written(value: object) -> str:
    try:
        encoded = strict_json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the checkpoint has no JSON form: {error}", code="invalid_checkpoint") from None
    if len(encoded) > MOST_BYTES:
        detail = f"the checkpoint has {len(encoded)} bytes, at most {MOST_BYTES} are kept"
        raise InvalidInput(detail, code="checkpoint_too_large")
    return encoded.decode()


def _read(text: str | None, kind: Any) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the checkpoint is not what is expected: {error}", code="invalid_checkpoint") from None
