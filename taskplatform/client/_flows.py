"""The calls of the API as flows, the same for both clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from taskplatform.client._base import Effort, Flow, Wait, in_path, read
from taskplatform.client._outcome import Outcome, answered
from taskplatform.client.calls import Call, encode
from taskplatform.client.errors import ClientError, JobTimeout, Rejected
from taskplatform.client.views import Accepted, AttemptView, DeadLetterView, JobView, Problem, TaskView
from taskplatform.job import State
from taskplatform.overview import Overview

LONGEST_WAIT_SECONDS = 20.0
BATCH_BYTES = 4_000_000
_BULK_IDS = 100
_JSON = {"Content-Type": "application/json"}


class JobFilters(TypedDict, total=False):
    """Which jobs a list holds; what is left out does not filter."""

    state: State | str | Sequence[State | str]
    task: str
    pool: str
    tag: str
    created_after: datetime
    created_before: datetime


class LetterFilters(TypedDict, total=False):
    """Which dead letters a list holds; what is left out does not filter."""

    reason: str
    task: str
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """One page of a list of jobs; an empty token ends it."""

    jobs: list[JobView]
    next_page_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterPage:
    """One page of a list of dead letters; an empty token ends it."""

    dead_letters: list[DeadLetterView]
    next_page_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    status: int
    id: UUID | None = None
    state: State = State.QUEUED
    problem: Problem = field(default_factory=Problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Items:
    items: list[_Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempts:
    attempts: list[AttemptView]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tasks:
    tasks: list[TaskView]


@dataclass(frozen=True, slots=True)
class Flows:
    """Every call of the API over one Effort."""

    effort: Effort

    def deadline(self, timeout_seconds: float | None) -> float | None:
        """Give the clock's reading at which a wait that begins now is over."""
        return None if timeout_seconds is None else self.effort.clock() + timeout_seconds

    def submit(self, call: Call[Any], wait_seconds: float = 0.0) -> Flow[JobView]:
        """Hand in a job; with `wait_seconds` the answer may be the ended job."""
        headers = {**_JSON, "Idempotency-Key": call.key}
        wait = min(wait_seconds, LONGEST_WAIT_SECONDS)
        body = encode(call.body())
        answer = yield from self.effort.ask("POST", "/v1/jobs", wait_seconds=wait, headers=headers, body=body)
        return read(answer, JobView)

    def submit_all(self, items: Iterable[bytes], batch_size: int) -> Flow[list[Accepted | Problem]]:
        """Hand in jobs, each written by `batch_item`, with few requests; gives what became of each, in order.

        Raises ClientError at the first request that fails.
        """
        outcome: list[Accepted | Problem] = []
        for batch in in_batches(items, batch_size):
            answers = yield from self._submit_batch(batch)
            outcome += map(answered, answers)
        return outcome

    def submit_each(self, items: Iterable[bytes], batch_size: int) -> Flow[list[Outcome]]:
        """Hand in jobs of many callers, each written by `batch_item`; gives the answer or the error of each, in order.

        A job gets the error of a request that refuses it alone: where several are refused as a whole, their halves are
        handed in apart. An error that is not about the jobs is that of all which have no answer yet.
        """
        outcome: list[Outcome] = []
        for batch in in_batches(items, batch_size):
            yield from self._submit_apart(batch, outcome)
        return outcome

    def _submit_apart(self, items: Sequence[bytes], outcome: list[Outcome]) -> Flow[None]:
        if outcome and _is_over(outcome[-1]):
            # The last one has tried as long as it may: the others need not find out again.
            outcome += [outcome[-1]] * len(items)
            return
        answers = yield from self._submit_batch(items)
        if len(items) == 1 or not any(isinstance(answer, Rejected) for answer in answers):
            outcome += answers
            return
        middle = len(items) // 2
        yield from self._submit_apart(items[:middle], outcome)
        yield from self._submit_apart(items[middle:], outcome)

    def _submit_batch(self, items: Sequence[bytes]) -> Flow[list[Outcome]]:
        outcome: list[Outcome] = [Problem()] * len(items)
        pending = list(range(len(items)))
        failures = 0
        while True:
            text = b"[" + b",".join(items[index] for index in pending) + b"]"
            try:
                answer = yield from self.effort.ask(
                    "POST", "/v1/jobs:batch", also="batch_rejected", headers=_JSON, body=text
                )
                found = read(answer, _Items).items
            except ClientError as error:
                for index in pending:
                    outcome[index] = error
                return outcome
            for index, item in zip(pending, found, strict=True):
                outcome[index] = item.problem if item.id is None else Accepted(id=item.id, state=item.state)
            # What the platform could not take at the moment is handed in again.
            pending = [index for index in pending if _is_passing(outcome[index])]
            failures += 1
            if not pending or failures >= self.effort.retry.max_attempts:
                return outcome
            yield Wait(seconds=self.effort.pause(failures))

    def get(self, job_id: UUID | str, wait_seconds: float = 0.0) -> Flow[JobView]:
        """Read a job; with `wait_seconds` the answer may be held back until it has ended."""
        answer = yield from self.effort.ask("GET", f"/v1/jobs/{in_path(job_id)}", wait_seconds=wait_seconds)
        return read(answer, JobView)

    def wait(self, job_id: UUID | str, timeout_seconds: float | None) -> Flow[JobView]:
        """Read a job when it has ended, or as it stands when the time is over."""
        deadline = self.deadline(timeout_seconds)
        looks = 0
        while True:
            began = self.effort.clock()
            left = LONGEST_WAIT_SECONDS if deadline is None else deadline - began
            held = min(max(left, 0.0), LONGEST_WAIT_SECONDS)
            job = yield from self.get(job_id, held)
            now = self.effort.clock()
            if job.done or (deadline is not None and now >= deadline):
                return job
            # An answer that came early was not held: waits below a second never are.
            if now - began < held / 2 or held < 1:
                looks += 1
                pause = min(self.effort.pause(looks), 1.0)
                yield Wait(seconds=pause if deadline is None else min(pause, max(deadline - now, 0.0)))

    def read_many(self, ids: Sequence[UUID]) -> Flow[list[JobView]]:
        """Read the jobs that exist among these."""
        found: list[JobView] = []
        for start in range(0, len(ids), _BULK_IDS):
            asked = ",".join(str(job_id) for job_id in ids[start : start + _BULK_IDS])
            answer = yield from self.effort.ask("GET", "/v1/jobs", params={"ids": asked, "page_size": str(_BULK_IDS)})
            found += read(answer, JobPage).jobs
        return found

    def some_done(self, ids: Sequence[UUID], deadline: float | None) -> Flow[list[JobView]]:
        """Give those of the jobs that have ended as soon as there is one.

        Waits on the oldest, and looks at all now and then. Raises JobTimeout when the clock passes `deadline`.
        """
        if len(ids) == 1:
            job = yield from self.wait(ids[0], None if deadline is None else deadline - self.effort.clock())
            return [_in_time(job)]
        hold = 1.0
        while True:
            began = self.effort.clock()
            jobs = yield from self.read_many(ids)
            if done := [job for job in jobs if job.done]:
                return done
            now = self.effort.clock()
            # As long a pause as the look at all took, so that many handles do not become a flood of reads.
            hold = min(max(hold * 1.5, now - began), LONGEST_WAIT_SECONDS)
            left = hold if deadline is None else deadline - now
            oldest = yield from self.wait(ids[0], min(hold, left))
            if oldest.done:
                return [oldest]
            if left <= hold:
                raise JobTimeout(oldest)

    def cancel(self, job_id: UUID | str) -> Flow[JobView]:
        """Cancel a job; one that has ended stays as it is."""
        answer = yield from self.effort.ask("POST", f"/v1/jobs/{in_path(job_id)}:cancel")
        return read(answer, JobView)

    def attempts(self, job_id: UUID | str) -> Flow[list[AttemptView]]:
        """Read every run of a job in order."""
        answer = yield from self.effort.ask("GET", f"/v1/jobs/{in_path(job_id)}/attempts")
        return read(answer, _Attempts).attempts

    def jobs(self, filters: JobFilters, token: str, page_size: int) -> Flow[JobPage]:
        """Read one page of jobs, the newest first."""
        params = _params(filters, token, page_size)
        answer = yield from self.effort.ask("GET", "/v1/jobs", params=params)
        return read(answer, JobPage)

    def dead_letters(self, filters: LetterFilters, token: str, page_size: int) -> Flow[LetterPage]:
        """Read one page of dead letters, the newest first."""
        params = _params(filters, token, page_size)
        answer = yield from self.effort.ask("GET", "/v1/dead-letters", params=params)
        return read(answer, LetterPage)

    def dead_letter(self, letter_id: int) -> Flow[DeadLetterView]:
        """Read one dead letter whole."""
        answer = yield from self.effort.ask("GET", f"/v1/dead-letters/{in_path(letter_id)}")
        return read(answer, DeadLetterView)

    def replay(self, letter_id: int) -> Flow[JobView]:
        """Hand a dead letter in again; gives its job."""
        answer = yield from self.effort.ask("POST", f"/v1/dead-letters/{in_path(letter_id)}:replay")
        return read(answer, JobView)

    def overview(self) -> Flow[Overview]:
        """Read the platform at a glance."""
        answer = yield from self.effort.ask("GET", "/v1/overview")
        return read(answer, Overview)

    def tasks(self) -> Flow[list[TaskView]]:
        """Read which tasks the workers have announced."""
        answer = yield from self.effort.ask("GET", "/v1/tasks")
        return read(answer, _Tasks).tasks


def in_batches(items: Iterable[bytes], batch_size: int) -> Iterator[list[bytes]]:
    """Cut items into batches of at most `batch_size` that fit into one request; a bigger item goes alone."""
    held: list[bytes] = []
    size = 0
    for item in items:
        if held and (len(held) >= batch_size or size + len(item) > BATCH_BYTES):
            yield held
            held, size = [], 0
        held.append(item)
        size += len(item) + 1
    if held:
        yield held


def _is_passing(item: Outcome) -> bool:
    return isinstance(item, Problem) and item.retryable


def _is_over(item: Outcome) -> bool:
    return isinstance(item, ClientError) and not isinstance(item, Rejected)


def _in_time(job: JobView) -> JobView:
    if not job.done:
        raise JobTimeout(job)
    return job


def _params(filters: Mapping[str, Any], token: str, page_size: int) -> dict[str, str]:
    wanted = {**filters, "page_size": page_size, "page_token": token}
    return {name: _text(value) for name, value in wanted.items() if value not in (None, "", ())}


def _text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat()
        case list() | tuple() | set() | frozenset():
            return ",".join(str(part) for part in value)
        case _:
            return str(value)
