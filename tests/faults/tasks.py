"""The jobs of a fault run: each writes down outside of the platform that it began and that it is done."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from threading import Event
from typing import NoReturn

from taskplatform import Retry, current_job, task
from tests.faults.history import Effect, Journal

EFFECTS_VARIABLE = "FAULTS_EFFECTS"
"""Names the folder for the effects; the worker's environment carries it to the children."""

FLAKY_RUNS = 3
_EAGER = Retry(max_attempts=5, backoff_seconds=0.2, max_backoff_seconds=1.0)
_TWICE = Retry(max_attempts=2, backoff_seconds=0.2, max_backoff_seconds=1.0)


class NotThisTime(Exception):
    """A later attempt will do."""


@functools.cache
def _journal(pid: int) -> Journal:
    return Journal(Path(os.environ[EFFECTS_VARIABLE]) / f"{pid}.jsonl")


def _write(*, done: bool, output: dict[str, object] | None = None) -> None:
    job, pid = current_job(), os.getpid()
    _journal(pid).add(Effect(job=str(job.id), attempt=job.attempt, pid=pid, at=time.time(), done=done, output=output))


def _done(number: int) -> dict[str, object]:
    output: dict[str, object] = {"number": number, "attempt": current_job().attempt, "pid": os.getpid()}
    _write(done=True, output=output)
    return output


@task(name="faults.noop", retry=_EAGER)
def noop(number: int) -> dict[str, object]:
    """Leave the effect and return it."""
    _write(done=False)
    return _done(number)


@task(name="faults.nap", retry=_EAGER)
def nap(number: int) -> dict[str, object]:
    """Take a while: 50 to 250 ms."""
    _write(done=False)
    Event().wait(0.05 + number % 5 * 0.05)
    return _done(number)


@task(name="faults.slow_second", retry=_EAGER)
def slow_second(number: int) -> dict[str, object]:
    """Be quick at first; a second attempt takes four seconds."""
    _write(done=False)
    Event().wait(0.5 if current_job().attempt == 1 else 4.0)
    return _done(number)


@task(name="faults.flaky", retry=_EAGER)
def flaky(number: int) -> dict[str, object]:
    """Fail twice, then succeed."""
    _write(done=False)
    if current_job().attempt < FLAKY_RUNS:
        raise NotThisTime(f"attempt {current_job().attempt} of job {number}")
    return _done(number)


@task(name="faults.hopeless", retry=_TWICE)
def hopeless(number: int) -> NoReturn:
    """Fail every time."""
    _write(done=False)
    raise NotThisTime(f"job {number} never succeeds")
