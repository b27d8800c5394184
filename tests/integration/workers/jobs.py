"""The tasks that the workers under test run."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from taskplatform.retry import Retry
from taskplatform.task import Fail, RetryLater, current_job, task

_SOON = Retry(max_attempts=3, backoff_seconds=0.01, jitter=0.0)


@task(name="noop")
def noop(value: int = 0) -> int:
    return value


@task(name="nap")
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


@task(name="whoami")
def whoami() -> dict[str, object]:
    job = current_job()
    return {"id": str(job.id), "attempt": job.attempt, "tenant": job.tenant, "pid": os.getpid()}


@task(name="context")
def context(failures: int = 0) -> str | None:
    if current_job().attempt <= failures:
        os.kill(os.getpid(), signal.SIGKILL)
    return current_job().trace


@task(name="async_context")
async def async_context(failures: int = 0) -> str | None:
    if current_job().attempt <= failures:
        raise RetryLater(0)
    return current_job().trace


@task(name="boom", retry=Retry(max_attempts=3, backoff_seconds=60.0, jitter=0.0, give_up_on=(KeyError,)))
def boom(kind: str) -> None:
    raise {"ValueError": ValueError, "KeyError": KeyError}[kind]("no such luck")


@task(name="hopeless")
def hopeless() -> None:
    raise Fail("nothing will help")


@task(name="later")
def later() -> None:
    raise RetryLater(120)


@task(name="hang", hard_limit_seconds=0.5, retry=_SOON)
def hang() -> None:
    time.sleep(60)


@task(name="overrun", soft_limit_seconds=0.3)
def overrun(marker: str) -> None:
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        Path(marker).write_text("told to stop")
        raise


@task(name="kill_child", retry=_SOON)
def kill_child() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(name="kill_child_once", retry=_SOON)
def kill_child_once(marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@task(name="quit_process")
def quit_process() -> None:
    raise SystemExit(3)


@task(name="fork_twice")
def fork_twice() -> int:
    return os.fork()


@task(name="exhaust")
def exhaust() -> None:
    raise MemoryError("pretended")


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@task(name="unspeakable")
def unspeakable() -> None:
    raise _Unspeakable


@task(name="odd_text")
def odd_text() -> None:
    raise ValueError("nul \0 and surrogate \ud800" + "x" * 1_000_000)


@task(name="no_json")
def no_json() -> object:
    return object()


@task(name="circular")
def circular() -> object:
    ring: list[object] = []
    ring.append(ring)
    return ring


@task(name="surrogate_result")
def surrogate_result() -> str:
    return "\ud800"


@task(name="nul_result")
def nul_result() -> str:
    return "a\0b"


@task(name="huge_result")
def huge_result(size: int) -> str:
    return "x" * size


@task(name="note")
def note(file: str, name: str, seconds: float) -> None:
    with Path(file).open("a") as notes:
        notes.write(f"{name}\n")
    time.sleep(seconds)


@task(name="wait_for")
def wait_for(marker: str) -> str:
    while not Path(marker).exists():
        time.sleep(0.01)
    return "there"


@task(name="ignores_cancel")
def ignores_cancel(marker: str) -> None:
    Path(marker).write_text(str(os.getpid()))
    time.sleep(60)


@shared_task
def plain_add(a: int, b: int) -> int:
    return a + b


@shared_task
def plain_boom() -> None:
    raise ValueError("plain trouble")


@shared_task(bind=True, max_retries=2)
def plain_retry(self: Any, wait: float) -> int:
    retries: int = self.request.retries
    if retries < 2:
        raise self.retry(countdown=wait)
    return retries


@shared_task(bind=True, max_retries=2)
def plain_retry_for_a_cause(self: Any) -> int:
    retries: int = self.request.retries
    try:
        if retries < 2:
            raise OSError("not yet")
    except OSError as error:
        raise self.retry(exc=error, countdown=0.05) from error
    return retries


@shared_task(autoretry_for=(OSError,), max_retries=2, retry_backoff=False, default_retry_delay=0)
def plain_autoretry(path: str) -> str:
    with Path(path).open("a+") as file:
        file.write("x")
        file.seek(0)
        if len(file.read()) < 3:
            raise OSError("not yet")
    return "done"


@shared_task(bind=True, max_retries=0)
def plain_retry_in_vain(self: Any) -> None:
    raise self.retry(exc=OSError("gave up"))
