"""The tasks that asynchronous workers under test run; files tell what happens inside."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

from celery import shared_task

from taskplatform.retry import Retry
from taskplatform.task import Fail, current_job, task

_SOON = Retry(max_attempts=3, backoff_seconds=0.01, jitter=0.0)


class _Crowd:
    """How many jobs are inside at once, and the most there ever were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._most = 0

    def enter(self, file: str) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > self._most:
                self._most = self._inside
                Path(file).write_text(str(self._most))

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1


_CROWD = _Crowd()


def _note(file: str, text: str) -> None:
    Path(file).write_text(text)


@task(name="async_noop")
async def async_noop(value: int = 0) -> int:
    return value


@task(name="async_nap")
async def async_nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


@task(name="async_crowd")
async def async_crowd(file: str, seconds: float) -> None:
    _CROWD.enter(file)
    await asyncio.sleep(seconds)
    _CROWD.leave()


@task(name="crowd")
def crowd(file: str, seconds: float) -> None:
    _CROWD.enter(file)
    time.sleep(seconds)
    _CROWD.leave()


@task(name="async_whoami")
async def async_whoami() -> dict[str, object]:
    await asyncio.sleep(0.01)
    job = await asyncio.to_thread(current_job)
    return {"id": str(job.id), "attempt": job.attempt, "tenant": job.tenant}


@task(name="whoami")
def whoami() -> dict[str, object]:
    return {"id": str(current_job().id), "thread": threading.current_thread().name}


@task(name="inline_whoami", inline=True)
def inline_whoami() -> dict[str, object]:
    return {"id": str(current_job().id), "thread": threading.current_thread().name}


@task(name="async_boom", retry=Retry(max_attempts=1))
async def async_boom() -> None:
    await asyncio.sleep(0)
    raise ValueError("no such luck")


@task(name="async_hopeless")
async def async_hopeless() -> None:
    raise Fail("nothing will help")


@task(name="async_quit", retry=Retry(max_attempts=1))
async def async_quit() -> None:
    raise SystemExit(3)


@task(name="async_no_json")
async def async_no_json() -> object:
    return object()


async def _wait_for_ever(marker: str) -> None:
    try:
        _note(marker, "started")
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        _note(marker, "cancelled")
        raise


@task(name="async_overrun", soft_limit_seconds=0.3, retry=Retry(max_attempts=1))
async def async_overrun(marker: str) -> None:
    await _wait_for_ever(marker)


@task(name="async_hang", hard_limit_seconds=0.3, retry=Retry(max_attempts=1))
async def async_hang(marker: str) -> None:
    await _wait_for_ever(marker)


@task(name="async_stubborn", hard_limit_seconds=0.3, retry=Retry(max_attempts=1))
async def async_stubborn() -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


@task(name="async_wait")
async def async_wait(marker: str) -> None:
    await _wait_for_ever(marker)


@task(name="async_wait_in_thread")
async def async_wait_in_thread(marker: str) -> None:
    _note(marker, "started")
    await asyncio.to_thread(time.sleep, 600)


@task(name="hang", hard_limit_seconds=0.3, retry=Retry(max_attempts=1))
def hang(marker: str) -> None:
    Path(marker).write_text("started")
    time.sleep(30)


@task(name="wait_in_thread")
def wait_in_thread(marker: str) -> None:
    Path(marker).write_text("started")
    time.sleep(30)


@task(name="until_there")
def until_there(file: str) -> str:
    return _until_there(file)


def _until_there(file: str) -> str:
    deadline = time.monotonic() + 30
    while not Path(file).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(file)
        time.sleep(0.01)
    return Path(file).read_text()


@task(name="async_block")
async def async_block(file: str) -> str:
    return _until_there(file)


@task(name="async_leave")
async def async_leave(file: str, text: str) -> None:
    await asyncio.sleep(0)
    _note(file, text)


@task(name="async_kill_worker", retry=_SOON)
async def async_kill_worker(marker: str) -> str:
    _kill_once(marker)
    return "survived"


def _kill_once(marker: str) -> None:
    if not Path(marker).exists():
        _note(marker, "killed")
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def plain_double(number: int) -> int:
    return 2 * number
