"""The work of all sides: the same two functions, and their form for event loops."""

from __future__ import annotations

import asyncio
import time

from benchmarks.ledger import mark

NAP_SECONDS = 0.02


def noop(number: int) -> int:
    """Do nothing, and say for whom."""
    mark(number)
    return number


def nap(number: int) -> int:
    """Wait as a job does that calls somebody else."""
    time.sleep(NAP_SECONDS)
    mark(number)
    return number


async def async_noop(number: int) -> int:
    """Do nothing on an event loop."""
    mark(number)
    return number


async def async_nap(number: int) -> int:
    """Wait on an event loop."""
    await asyncio.sleep(NAP_SECONDS)
    mark(number)
    return number
