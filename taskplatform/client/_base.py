"""What both clients do, without doing it: requests to send, answers to read, and when to try again, as generators.

A flow yields a Request, and is sent the Answer or the NoAnswer; or it yields a Wait, and is sent None. What it returns
is the result of the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from taskplatform.client import errors
from taskplatform.client.views import Problem
from taskplatform.retry import Retry, backoff

T = TypeVar("T")

DEFAULT_RETRY = Retry(max_attempts=12, backoff_seconds=0.2, max_backoff_seconds=10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to send; `timeout_seconds` bounds each silence while it is under way."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Do nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """The connection failed or timed out: whether the request was carried out is not known."""

    why: str


Reply = Answer | NoAnswer | None
Flow = Generator[Request | Wait, Reply, T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard a call is tried: until it is answered, within `retry.max_attempts` and `patience_seconds`.

    `timeout_seconds` bounds one request, beside what it may be held back on purpose.
    Every request of the SDK may be repeated: submissions carry their key, the others change nothing twice.
    """

    retry: Retry = DEFAULT_RETRY
    patience_seconds: float = 60.0
    timeout_seconds: float = 10.0
    clock: Callable[[], float] = time.monotonic
    random: Random = field(default_factory=Random)

    def ask(self, method: str, path: str, *, wait_seconds: float = 0.0, also: str = "", **parts: Any) -> Flow[Answer]:
        """Send a request, again while that can help.

        The answer's status is 2xx, or it is a problem with the code `also`. Raises ApiError when the request is refused
        for good.
        """
        timeout = self.timeout_seconds + wait_seconds
        request = Request(method=method, path=path, timeout_seconds=timeout, **_preferring(parts, wait_seconds))
        deadline = self.clock() + self.patience_seconds
        failures = 0
        while True:
            reply = yield request
            if isinstance(reply, Answer) and 200 <= reply.status < 300:
                return reply
            error = _refusal(reply)
            if isinstance(reply, Answer) and also and error.problem.code == also:
                return reply
            failures += 1
            if not _passing(error.problem) or failures >= self.retry.max_attempts:
                raise error
            pause = self.pause(failures, error)
            if self.clock() + pause > deadline:
                raise error
            yield Wait(seconds=pause)

    def pause(self, failures: int, error: errors.ApiError | None = None) -> float:
        """Give the seconds to wait after so many failures: what the API asks for, and some jitter on top."""
        asked = 0.0 if error is None else error.retry_after_seconds or 0.0
        return asked + backoff(self.retry, failures, self.random)


def read(answer: Answer, kind: type[T]) -> T:
    """Decode an answer's body. Raises UnexpectedAnswer when it is not of that kind."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.UnexpectedAnswer(f"status {answer.status} with an unexpected body: {error}") from None


def in_path(part: object) -> str:
    """Write a value as one segment of a path."""
    return quote(str(part), safe="")


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Read Retry-After (RFC 9110, section 10.2.3) as seconds from `now`; None where it is missing or malformed."""
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max((parsedate_to_datetime(text) - now).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


def _preferring(parts: dict[str, Any], wait_seconds: float) -> dict[str, Any]:
    if wait_seconds < 1:
        return parts
    return parts | {"headers": {**parts.get("headers", {}), "Prefer": f"wait={int(wait_seconds)}"}}


def _refusal(reply: Reply) -> errors.ApiError:
    if not isinstance(reply, Answer):
        why = reply.why if isinstance(reply, NoAnswer) else "nothing was sent"
        return errors.NoAnswer(Problem(title="no answer from the API", detail=why, code="no_answer", retryable=True))
    return errors.refusal(_problem(reply), retry_after(reply.headers, datetime.now(UTC)))


def _problem(answer: Answer) -> Problem:
    try:
        found = msgspec.json.decode(answer.body, type=Problem)
    except (msgspec.DecodeError, RecursionError):
        # A proxy in between speaks for itself.
        found = Problem(title=f"HTTP status {answer.status}", retryable=answer.status >= 500)
    return replace(found, status=answer.status)


def _passing(problem: Problem) -> bool:
    return problem.retryable or problem.status in (408, 425, 429, 502, 503, 504)
