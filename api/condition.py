"""What this process depends on, and how it is: asked for now and then, however often it is shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from taskplatform.broker.contract import Broker
from taskplatform.cache.contract import Cache
from taskplatform.errors import TaskplatformError
from taskplatform.telemetry import Metrics, logger

FRESH_SECONDS = 1.0
ANSWER_SECONDS = 2.0
WAIT_SECONDS = 0.2
"""A load balancer asks with little patience: a store that hangs must not make this process look dead."""

_log = logger(__name__)


class Condition:
    """Whether the store answers and the broker is there; the store is asked once in FRESH_SECONDS at most.

    `ask` has it answer something, and raises a TaskplatformError when it does not.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[object]],
        broker: Broker,
        metrics: Metrics,
        *,
        cache: Cache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask_store = ask
        self._broker = broker
        self._metrics = metrics
        self._cache = cache
        if cache is not None:
            metrics.mode.labels(component="cache").set_function(lambda: float(not cache.connected))
        self._clock = clock
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[bool] | None = None
        self._answered = False
        self.started = False
        """Whether the store has ever answered this process."""
        self.leaving = False
        """Whether this process was told to stop: it still serves, but callers are to go elsewhere."""

    @property
    def broker(self) -> bool:
        """Whether the broker could be spoken to last."""
        connected = self._broker.connected
        self._metrics.mode.labels(component="broker").set(not connected)
        return connected

    @property
    def cache(self) -> str:
        """How the cache is: ok, away, or off where there is none."""
        return "off" if self._cache is None else "ok" if self._cache.connected else "away"

    async def store(self) -> bool:
        """Tell whether the store answers, as it said last when it takes longer than WAIT_SECONDS now."""
        if self._asking is None and self._clock() - self._asked_at >= FRESH_SECONDS:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=WAIT_SECONDS)
        return self._answered

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._ask_store()
        except (TaskplatformError, TimeoutError):
            self._answered = False
        except Exception as error:  # noqa: BLE001  Whatever it is, the store is of no use.
            _log.error("The store cannot be asked how it is", exc_info=error)
            self._answered = False
        else:
            self._answered = self.started = True
        finally:
            self._asking = None
            self._asked_at = self._clock()
        self._metrics.mode.labels(component="store").set(not self._answered)
        return self._answered
