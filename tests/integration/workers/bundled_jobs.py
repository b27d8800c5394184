"""Tasks of an asynchronous worker, of which one lets its jobs travel together and one does not."""

import asyncio

from taskplatform.task import task


@task(name="async_quick", bundle_jobs=100)
async def async_quick(value: int = 0) -> int:
    return value


@task(name="async_slow")
async def async_slow(seconds: float) -> None:
    await asyncio.sleep(seconds)
