"""Tasks that the SDK and the command line are tried with."""

from dataclasses import dataclass
from pathlib import Path

from taskplatform import Fail, Retry, RetryLater, current_job, task


@dataclass(frozen=True, kw_only=True)
class Sum:
    total: int
    parts: tuple[int, ...]


@task(name="demo.add")
def add(first: int, second: int) -> Sum:
    return Sum(total=first + second, parts=(first, second))


@task(name="demo.refuse", retry=Retry(max_attempts=1))
def refuse(why: str) -> None:
    raise Fail(why)


@task(name="demo.second_try", retry=Retry(max_attempts=3, backoff_seconds=0.01))
def second_try() -> int:
    attempt = current_job().attempt
    if attempt < 2:
        raise RetryLater(0.01, "not yet")
    return attempt


@task(name="demo.wait_for", retry=Retry(max_attempts=1000))
def wait_for(path: str) -> bool:
    if not Path(path).exists():
        raise RetryLater(0.05, f"{path} is not there yet")
    return True
