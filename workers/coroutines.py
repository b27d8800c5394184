"""Runs one coroutine to its end where no event loop runs, and lets a signal handler stop it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class JobLoop(asyncio.SelectorEventLoop):
    """The event loop of one job; `why` says what it was interrupted with."""

    def __init__(self) -> None:
        super().__init__()
        self.why: BaseException | None = None
        self._job: asyncio.Task[Any] | None = None

    async def run_job(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await the coroutine of the job."""
        self._job = asyncio.current_task()
        return await coroutine

    def interrupt(self, why: BaseException) -> None:
        """Cancel the job, which then ends with `why`; for signal handlers, which may come at any point of the loop."""
        self.call_soon_threadsafe(self._cancel, why)

    def _cancel(self, why: BaseException) -> None:
        if self._job is not None and self._job.cancel():
            self.why = why


def completing(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Give a function that calls the other one and runs its coroutine to the end."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return complete(function(*args, **kwargs))

    return run


def complete(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own."""
    with asyncio.Runner(loop_factory=JobLoop) as runner:
        loop: Any = runner.get_loop()
        try:
            result: T = runner.run(loop.run_job(coroutine))
        except asyncio.CancelledError as error:
            if loop.why is None:
                raise
            raise loop.why from error
        return result


def interrupt_coroutine(why: BaseException) -> bool:
    """Interrupt the job that `complete` runs in this thread; False where none does."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False
    if not isinstance(loop, JobLoop):
        return False
    loop.interrupt(why)
    return True
