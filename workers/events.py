"""What Celery's monitors hear of this worker's jobs: nothing while nobody asks, and a sample where there are many."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from taskplatform.job import Envelope, State
from taskplatform.store.working import Claimed, Ended, Ending, GivenBack, PutOff
from workers.held import Held

WATCHED_SECONDS = 15.0
"""How long one request for events counts; Flower repeats its own every 5 s."""
_BURST_SECONDS = 4.0
_MOST_KEPT = 4096
_TEXT = 200
_TRACEBACK = 4000
_BODY_BYTES = 16_384

_BODY = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], Any])


@dataclass(frozen=True, slots=True)
class _Received:
    at: float
    envelope: Envelope
    failures: int


@dataclass(frozen=True, slots=True)
class _Started:
    at: float
    id: UUID


@dataclass(frozen=True, slots=True)
class _Revoked:
    at: float
    id: UUID


_News = _Received | _Started | _Revoked | Ended | PutOff


class Events:
    """Keeps what is worth telling until `take` is called, which another thread may do.

    A job is told of from its claim to its ending, or not at all: `jobs_per_second` of them, and as many failures.
    """

    def __init__(
        self, jobs_per_second: float, *, show_arguments: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.on = False
        """Whether anybody watches."""
        self.processed = 0
        """How many endings this worker has recorded."""
        self._show_arguments = show_arguments
        self._clock = clock
        self._until = 0.0
        self._jobs = _Allowance(jobs_per_second, clock)
        self._failures = _Allowance(jobs_per_second, clock)
        self._shown: dict[UUID, None] = {}
        self._news: deque[_News] = deque(maxlen=_MOST_KEPT)

    def watch(self) -> None:
        """Tell of jobs for the next WATCHED_SECONDS."""
        self._until = self._clock() + WATCHED_SECONDS
        self.on = True

    def rest(self) -> None:
        """Stop when nobody has asked for so long."""
        if self.on and self._clock() > self._until:
            self.on = False
            self._shown.clear()
            self._news.clear()

    def introduce(self, running: Iterable[Held]) -> None:
        """Tell of jobs that run; what is known of them already is heard once more."""
        now = time.time()
        for held in running:
            self._shown[held.envelope.id] = None
            self._news.append(_Received(now, held.envelope, held.failures))
            self._news.append(_Started(now, held.envelope.id))

    def turned(self, recorded: Sequence[tuple[Envelope, Ending]], claimed: Sequence[tuple[Envelope, Claimed]]) -> None:
        """Take in what a turn has recorded and claimed."""
        self.processed += len(recorded)
        if not self.on:
            return
        for envelope, ending in recorded:
            self._ended(envelope, ending)
        now = time.time()
        for envelope, claim in claimed[: self._jobs.take(len(claimed))]:
            self._shown[claim.id] = None
            self._news.append(_Received(now, envelope, claim.failures))

    def handed(self, jobs: Iterable[Held]) -> None:
        """Take in that jobs start now, or very soon; to be called while somebody watches."""
        now = time.time()
        self._news.extend(_Started(now, held.envelope.id) for held in jobs if held.envelope.id in self._shown)

    def lost(self, ids: Iterable[UUID]) -> None:
        """Take in that jobs were cancelled, or taken away."""
        now = time.time()
        self._news.extend(_Revoked(now, job_id) for job_id in ids if self._was_shown(job_id))

    def take(self, most: int) -> list[dict[str, Any]]:
        """Give what there is to tell, in Celery's words, and forget it."""
        taken: list[dict[str, Any]] = []
        while self._news and len(taken) < most:
            taken.append(self._told(self._news.popleft()))
        return taken

    def _ended(self, envelope: Envelope, ending: Ending) -> None:
        shown = self._was_shown(ending.id)
        if isinstance(ending, GivenBack):
            return
        if not shown:
            if isinstance(ending, Ended) and ending.state is State.SUCCEEDED:
                return
            if not self._failures.take(1):
                return
            # What goes wrong is what an operator looks for.
            self._news.append(_Received(ending.started, envelope, 0))
        self._news.append(ending)

    def _was_shown(self, job_id: UUID) -> bool:
        # In one step: the thread of the monitors may empty it meanwhile.
        return self._shown.pop(job_id, False) is None

    def _told(self, news: _News) -> dict[str, Any]:
        match news:
            case _Received(at=at, envelope=envelope, failures=failures):
                return {"type": "task-received", "timestamp": at, **self.described(envelope), "retries": failures}
            case _Started(at=at, id=job_id):
                return {"type": "task-started", "timestamp": at, "uuid": str(job_id)}
            case _Revoked(at=at, id=job_id):
                return {"type": "task-revoked", "timestamp": at, "uuid": str(job_id), "terminated": True}
            case Ended(state=State.SUCCEEDED):
                result = _short(news.result or "null") if self._show_arguments else ""
                return {"type": "task-succeeded", **_times(news), "result": result}
            case Ended():
                return {"type": "task-failed", **_times(news), **_trouble(news.error)}
            case PutOff():
                return {"type": "task-retried", **_times(news), **_trouble(news.error)}

    def described(self, envelope: Envelope) -> dict[str, Any]:
        """Describe a job in Celery's words."""
        job_id = str(envelope.id)
        args, kwargs = self._arguments(envelope)
        return {
            "uuid": job_id,
            "name": envelope.task,
            "args": args,
            "kwargs": kwargs,
            "root_id": job_id,
            "routing_key": f"jobs.{envelope.pool}.{envelope.priority}",
        }

    def _arguments(self, envelope: Envelope) -> tuple[str, str]:
        if not self._show_arguments:
            return "(hidden)", "(hidden)"
        if len(envelope.body) > _BODY_BYTES:
            return f"({len(envelope.body)} characters)", ""
        try:
            args, kwargs, _ = _BODY.decode(envelope.body)
        except msgspec.DecodeError:
            return "", ""
        return _short(repr(args)), _short(repr(kwargs))


class _Allowance:
    """So many a second, and a few seconds' worth of them at once."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._clock = clock
        self._left = self._most = per_second * _BURST_SECONDS
        self._at = clock()

    def take(self, wanted: int) -> int:
        """Give how many of those wanted are allowed now."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        given = min(wanted, int(self._left))
        self._left -= given
        return given


def _times(ending: Ended | PutOff) -> dict[str, Any]:
    runtime = max(ending.stopped - ending.started, 0.0)
    return {"timestamp": ending.stopped, "uuid": str(ending.id), "runtime": runtime}


def _trouble(error: str | None) -> dict[str, str]:
    found = msgspec.json.decode(error) if error else {}
    kind = str(found.get("type") or found.get("trouble") or "failure")
    text = f"{kind.rpartition('.')[2]}({found.get('message', '')!r})"
    return {"exception": _short(text), "traceback": str(found.get("traceback") or "")[-_TRACEBACK:]}


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}…"
