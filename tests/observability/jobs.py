"""The jobs of a watched platform: quick ones, and ones that no retry helps."""

import time

from taskplatform import Fail, Retry, current_job, task


@task(name="watched.quick")
def quick() -> int:
    """Succeed at once."""
    return 1


@task(name="watched.slow")
def slow() -> None:
    """Keep a worker busy."""
    time.sleep(5)


@task(name="watched.second_time", retry=Retry(max_attempts=2, backoff_seconds=0.01, jitter=0.0))
def second_time() -> str | None:
    """Fail at first, and then give the context of the run."""
    if current_job().attempt == 1:
        raise ConnectionError("not this time")
    return current_job().trace


@task(name="watched.hopeless")
def hopeless() -> None:
    """Fail for good."""
    raise Fail("this never works")
