"""What happened inside a job, in the child: result and failure as texts that can be stored, whatever it raised."""

from __future__ import annotations

import sys
import threading
import traceback as traceback_module
from typing import Any

import msgspec
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from kombu.utils.json import dumps

from taskplatform import strict_json
from taskplatform.errors import InvalidInput
from taskplatform.job import Trouble
from taskplatform.retry import qualified_name
from taskplatform.task import Fail, HandBack, RetryLater
from workers.backend import ResultBackend

TEXT_BYTES = 16 * 1024
"""Longest message and longest traceback that are kept."""

_MOST_BASES = 20
_MOST_NAME = 300


class Cancelled(BaseException):
    """Raised in a job that was cancelled, to let it clean up."""


class Caught(msgspec.Struct, frozen=True):
    """What a job ended in: `result`, or `trouble` with its circumstances."""

    result: str | None = None
    trouble: Trouble | None = None
    error_types: list[str] = []
    message: str = ""
    traceback: str = ""
    after_seconds: float | None = None


def caught_result(value: Any, limit_bytes: int) -> Caught:
    """Write a return value as JSON; one that has no JSON form or is too large is a failure that no retry mends."""
    try:
        try:
            encoded = strict_json.encode(value)
        except strict_json.NotFinite:
            raise
        except (TypeError, ValueError):
            encoded = dumps(value).encode()
            # Escaped halves of surrogate pairs are JSON to some readers only.
            msgspec.json.decode(encoded)
        if len(encoded) <= limit_bytes:
            return Caught(result=encoded.decode())
        problem = f"result_too_large: the result has {len(encoded)} bytes, at most {limit_bytes} are kept"
    except BaseException as error:
        # Whatever user code does in its own iterators ends here.
        problem = f"the result has no JSON form: {text_of(error)}"
    return Caught(trouble=Trouble.BAD_RESULT, message=shortened(problem))


def caught_error(error: BaseException) -> Caught:
    """Describe what a job raised."""
    trouble = Trouble.ERROR
    after: float | None = None
    match error:
        case RetryLater():
            trouble, after = Trouble.RETRY_LATER, error.after_seconds
        case HandBack():
            trouble = Trouble.HANDED_BACK
        case Fail() | InvalidInput():
            trouble = Trouble.HOPELESS
        case SoftTimeLimitExceeded() | TimeLimitExceeded():
            trouble = Trouble.TIMEOUT
        case _:
            pass
    return Caught(
        trouble=trouble,
        error_types=types_of(type(error)),
        message=text_of(error),
        traceback=traceback_of(error),
        after_seconds=after,
    )


def types_of(error: type[BaseException]) -> list[str]:
    """Name a class and its bases, nearest first, for the rules of retry policies."""
    return [clean(qualified_name(kind))[:_MOST_NAME] for kind in error.__mro__[:_MOST_BASES] if kind is not object]


def text_of(error: BaseException) -> str:
    """Give an error's message, even of one whose own `__str__` raises."""
    try:
        return shortened(str(error))
    except BaseException as worse:
        # The message of a message must not end the child.
        return f"<{type(error).__name__} whose text cannot be had: {type(worse).__name__}>"


def traceback_of(error: BaseException) -> str:
    """Give an error's traceback, its last part where it is long."""
    try:
        lines = traceback_module.TracebackException.from_exception(error, limit=-50, compact=True).format()
        return shortened("".join(lines), keep_end=True)
    except BaseException as worse:
        return f"<no traceback: {type(worse).__name__}>"


def shortened(text: str, *, keep_end: bool = False) -> str:
    """Cut a text to TEXT_BYTES and to what Postgres stores."""
    part = text[-TEXT_BYTES:] if keep_end else text[:TEXT_BYTES]
    encoded = clean(part).encode()
    if len(encoded) <= TEXT_BYTES:
        return encoded.decode()
    cut = encoded[-TEXT_BYTES:] if keep_end else encoded[:TEXT_BYTES]
    return cut.decode(errors="ignore")


def clean(text: str) -> str:
    """Replace what is no Unicode text, and NUL, which Postgres' text cannot hold."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()


class _Kept(threading.local):
    caught: Caught | None = None


class CaptureBackend(ResultBackend):
    """Stands where the tracer expects a result backend, and keeps what it is told for the job that its thread runs."""

    def __init__(self, app: Any, limit_bytes: int) -> None:
        super().__init__(app)
        self._limit_bytes = limit_bytes
        self._kept = _Kept()

    def take(self) -> Caught | None:
        """Give what was caught last, and forget it."""
        caught, self._kept.caught = self._kept.caught, None
        return caught

    def mark_as_done(self, task_id: str, result: Any, *rest: Any, **options: Any) -> None:
        """Keep a return value."""
        self._kept.caught = caught_result(result, self._limit_bytes)

    def mark_as_failure(
        self, task_id: str, exc: BaseException, *rest: Any, request: Any = None, **options: Any
    ) -> None:
        """Keep an error, then tell Celery's error callbacks."""
        # The tracer replaces an error that cannot be pickled; the real one is still being handled.
        self._kept.caught = caught_error(sys.exc_info()[1] or exc)
        if request is not None and request.errbacks and options.get("call_errbacks", True):
            stock: Any = self
            stock._call_task_errbacks(request, exc, options.get("traceback"))

    def mark_as_retry(
        self, task_id: str, exc: BaseException | None, *rest: Any, request: Any = None, **options: Any
    ) -> None:
        """Keep that a plain Celery task asked for a retry; its `retry` left the wait on the request."""
        error = exc if isinstance(exc, BaseException) else None
        self._kept.caught = Caught(
            trouble=Trouble.RETRY_LATER,
            error_types=types_of(type(error)) if error is not None else [],
            message=text_of(error) if error is not None else "the task asked for a retry",
            traceback=traceback_of(error) if error is not None else "",
            after_seconds=getattr(request, "retry_after_seconds", None),
        )
