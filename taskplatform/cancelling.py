"""Ends tasks for certain: a task that is cancelled once may live on."""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN_SECONDS = 1.0


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and return when all have ended, however they ended.

    Until Python 3.12 `asyncio.wait_for` loses a cancellation that arrives as what it waits for ends
    (https://github.com/python/cpython/issues/86296), and redis-py awaits every write by it: who lives on is cancelled
    again.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            # Asked for, so that nobody is told of an error that was never looked at.
            task.exception()
