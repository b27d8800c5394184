"""Long jobs that keep how far they have come."""

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec

from taskplatform import HandBack, Retry, checkpoint, current_job, task
from taskplatform.errors import AttemptLost

_SOON = Retry(max_attempts=1, backoff_seconds=0.01, jitter=0.0)


class Progress(msgspec.Struct):
    page: int = 0


def _note(file: str, page: int) -> None:
    with Path(file).open("a") as notes:
        notes.write(f"{current_job().attempt}:{page}\n")


@task(name="pages", retry=_SOON)
def pages(file: str, last: int, wait_at: int) -> int:
    progress = checkpoint.load(Progress) or Progress()
    while progress.page < last:
        progress.page += 1
        checkpoint.save(progress)
        _note(file, progress.page)
        while progress.page == wait_at and current_job().attempt == 1:
            if checkpoint.draining():
                raise HandBack
            time.sleep(0.01)
    return progress.page


@task(name="async_pages", retry=_SOON)
async def async_pages(file: str, last: int, wait_at: int) -> int:
    progress = await checkpoint.load_async(Progress) or Progress()
    while progress.page < last:
        progress.page += 1
        await checkpoint.save_async(progress)
        _note(file, progress.page)
        while progress.page == wait_at and current_job().attempt == 1:
            if checkpoint.draining():
                raise HandBack
            await asyncio.sleep(0.01)
    return progress.page


@task(name="tally")
async def tally(number: int) -> int:
    for count in range(5):
        await asyncio.gather(*(checkpoint.save_async(number * 10 + count) for _ in range(2)))
    found: int = await checkpoint.load_async(int) or 0
    return found


@task(name="killed_once", retry=_SOON)
def killed_once(last: int, die_at: int) -> list[int]:
    done = checkpoint.load(list[int]) or []
    for page in range(len(done) + 1, last + 1):
        done.append(page * current_job().attempt)
        checkpoint.save(done)
        if page == die_at and current_job().attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return done


@task(name="saves_until")
def saves_until(file: str) -> bool:
    number = 0
    while not Path(file).exists():
        number += 1
        checkpoint.save(number)
    return checkpoint.load(int) == number


@task(name="gives_up_without_reason")
def gives_up_without_reason() -> None:
    raise HandBack


@task(name="saves_when_it_is_too_late")
def saves_when_it_is_too_late(file: str) -> None:
    if current_job().attempt > 1:
        checkpoint.save("the second")
        _note(file, 0)
        while True:
            time.sleep(0.01)
    try:
        _note(file, 0)
        while True:
            time.sleep(0.01)
    except BaseException:
        try:
            checkpoint.save("the first")
        except AttemptLost as error:
            Path(file + ".refused").write_text(str(error))
        raise


@task(name="bad_save")
def bad_save(kind: str) -> None:
    checkpoint.save({"large": "x" * 70_000, "object": object(), "nan": [float("nan")], "text": "\ud800"}[kind])


@task(name="bad_load")
def bad_load() -> int:
    checkpoint.save({"page": "three"})
    progress = checkpoint.load(Progress)
    return 0 if progress is None else progress.page


@task(name="blocking_save")
async def blocking_save() -> None:
    checkpoint.save(1)
