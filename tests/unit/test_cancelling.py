"""Tasks that do not end at once when they are cancelled."""

import asyncio
from contextlib import suppress

import pytest

from taskplatform import cancelling


def test_a_task_that_loses_a_cancellation_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_AGAIN_SECONDS", 0.01)

    async def deaf(there: asyncio.Event) -> None:
        with suppress(asyncio.CancelledError):
            there.set()
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def scene() -> bool:
        there = asyncio.Event()
        task = asyncio.create_task(deaf(there))
        await there.wait()
        await cancelling.cancel(task)
        return task.cancelled()

    assert asyncio.run(scene())


def test_one_that_failed_and_one_that_had_ended_trouble_nobody() -> None:
    async def fail() -> None:
        raise OSError("gone")

    async def succeed() -> None:
        """End at once."""

    async def scene() -> None:
        failing, ended = asyncio.create_task(fail()), asyncio.create_task(succeed())
        await asyncio.wait([failing, ended])
        await cancelling.cancel(failing, ended)

    asyncio.run(scene())
