"""The jobs of the container trial: each writes down outside of the platform that it began and that it is done."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from threading import Event

from taskplatform import Retry, current_job, task

_EFFECTS = Path("/effects")


def _note(*, done: bool) -> None:
    job, host = current_job(), socket.gethostname()
    line = json.dumps({"job": str(job.id), "attempt": job.attempt, "host": host, "done": done})
    # One call and O_APPEND: no other writer and no death can cut a line.
    descriptor = os.open(_EFFECTS / f"{host}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


@task(name="trial.nap", retry=Retry(max_attempts=5, backoff_seconds=0.2, max_backoff_seconds=1.0))
def nap(number: int, seconds: float) -> int:
    """Take so long, and give the number back."""
    _note(done=False)
    Event().wait(seconds)
    _note(done=True)
    return number
