"""Shows the metrics of one of several API processes on a port of its own: the port they share leads to any of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from taskplatform.cancelling import cancel
from taskplatform.probe import Probe
from taskplatform.settings import Settings
from taskplatform.telemetry import logger

TRY_AGAIN_SECONDS = 1.0


@contextlib.asynccontextmanager
async def own_port(settings: Settings, probe: Probe) -> AsyncIterator[None]:
    """Serve on the first free one of the ports from `metrics_port` on, one for each process, while the context lasts.

    Nothing is served by a single process, which has the API's port for itself, and without a `metrics_port`.
    """
    if settings.api_processes == 1 or not settings.metrics_port:
        yield
        return
    async with contextlib.AsyncExitStack() as stack:
        looking = asyncio.create_task(_listen(settings, probe, stack))
        try:
            yield
        finally:
            await cancel(looking)


async def _listen(settings: Settings, probe: Probe, stack: contextlib.AsyncExitStack) -> None:
    # All may be taken for a moment: by a process whose place this one takes.
    while True:
        for port in range(settings.metrics_port, settings.metrics_port + settings.api_processes):
            with contextlib.suppress(OSError):
                await stack.enter_async_context(probe.serve(settings.metrics_host, port))
                logger("api").info("Serving metrics", host=settings.metrics_host, port=port)
                return
        await asyncio.sleep(TRY_AGAIN_SECONDS)
