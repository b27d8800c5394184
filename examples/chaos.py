"""Job pack: jobs that misbehave on purpose, to show what becomes of them."""

from __future__ import annotations

import os
import signal
from typing import Annotated, NoReturn

from msgspec import Meta

from examples.documents import text_of, tokens
from taskplatform import Retry, RetryLater, current_job, task

Name = Annotated[str, Meta(min_length=1, max_length=1000)]
Attempts = Annotated[int, Meta(ge=1, le=10)]
Seconds = Annotated[float, Meta(ge=0, le=3600)]

EAGER = Retry(max_attempts=12, backoff_seconds=0.2, max_backoff_seconds=2.0)


class ShelfStuckError(Exception):
    """The shelf did not open this time; a later attempt finds it open."""


@task(name="chaos.stuck_shelf", retry=EAGER, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def stuck_shelf(title: Name, opens_on_attempt: Attempts = 3) -> dict[str, object]:
    """Count the words of a document on a shelf that fails with an error before the attempt `opens_on_attempt`."""
    attempt = current_job().attempt
    if attempt < opens_on_attempt:
        raise ShelfStuckError(f"the shelf of {title!r} is stuck at attempt {attempt}")
    return {"title": title, "words": len(tokens(text_of(title))), "attempt": attempt}


@task(name="chaos.busy_shelf", retry=EAGER, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def busy_shelf(title: Name, opens_on_attempt: Attempts = 2, come_back_seconds: Seconds = 0.5) -> dict[str, object]:
    """Count the words of a document on a shelf that asks to come back later before the attempt `opens_on_attempt`."""
    attempt = current_job().attempt
    if attempt < opens_on_attempt:
        raise RetryLater(after_seconds=come_back_seconds, reason=f"the shelf of {title!r} is busy")
    return {"title": title, "words": len(tokens(text_of(title))), "attempt": attempt}


@task(name="chaos.kill_worker", retry=EAGER, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def kill_worker() -> NoReturn:
    """Kill the process that runs this job, as the kernel does when memory runs out. Refuses outside of a job."""
    current_job()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: SIGKILL cannot be survived")
