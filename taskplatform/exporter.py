"""The exporter process: shows what only database and broker know, reconciles them, and sends canaries."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from taskplatform.broker.contract import Broker
from taskplatform.builtin import canary
from taskplatform.canary import Canary, Report, Trip
from taskplatform.census import Census
from taskplatform.client import AsyncClient, JobTimeout
from taskplatform.errors import SettingsError
from taskplatform.job import State
from taskplatform.metrics import Part
from taskplatform.playing import play, stop_by_signal
from taskplatform.reconciler import Reconciler
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.watching import WatchStore
from taskplatform.survey import Survey
from taskplatform.telemetry import Metrics, configure_logging, new_metrics
from taskplatform.wiring import new_broker, new_store

SENDING_SECONDS = 10.0
"""How much longer than its trip a canary may take to be handed in."""


async def run_exporter(settings: Settings) -> None:
    """Run all roles until SIGTERM or SIGINT.

    Raises SettingsError without a metrics port, or without an API key for canaries; OSError when the port is taken.
    """
    if not settings.metrics_port:
        raise SettingsError("metrics_port is 0: the exporter has nothing else to do than to answer on it")
    configure_logging(settings.log_level, settings.log_format, Part.EXPORTER)
    stop = stop_by_signal()
    metrics = new_metrics(Part.EXPORTER)
    async with AsyncExitStack() as stack:
        store = new_store(settings, Part.EXPORTER)
        await store.open()
        stack.push_async_callback(store.close)
        broker = new_broker(settings)
        await broker.start()
        stack.push_async_callback(broker.stop)
        metrics.mode.labels(component="broker").set_function(lambda: float(not broker.connected))
        roles = watchers(settings, store, broker, metrics)
        if settings.canary_seconds:
            client = await stack.enter_async_context(_client(settings))
            roles.append(Canary(Sender(client), metrics, settings))
        await play(roles, settings, metrics, stop)


def watchers(settings: Settings, store: WatchStore, broker: Broker, metrics: Metrics) -> list[Role]:
    """Make the roles that look at store and broker."""
    return [
        Census(store, metrics, settings),
        Survey(store, broker, metrics, settings),
        Reconciler(store, broker, metrics, settings),
    ]


class Sender:
    """Sends canaries through the API, as every caller's job goes; the API key says whose they are."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def __call__(self, pool: str, within_seconds: float) -> Report:
        """See canary.Send. A canary that is late expires."""
        wanted = canary.options(pool=pool, deadline_seconds=within_seconds)
        began = time.monotonic()
        try:
            async with asyncio.timeout(within_seconds + SENDING_SECONDS):
                handle = await self._client.submit(wanted)
                accepted = time.monotonic() - began
                job = await handle.wait(within_seconds)
        except (TimeoutError, JobTimeout):
            return Report(trip=Trip.LATE)
        if job.state is not State.SUCCEEDED or job.started_at is None or job.ended_at is None:
            return Report(trip=Trip.LATE if job.state is not State.DEAD else Trip.FAILED, accept_seconds=accepted)
        return Report(
            trip=Trip.ARRIVED,
            accept_seconds=accepted,
            start_seconds=(job.started_at - job.created_at).total_seconds(),
            run_seconds=(job.ended_at - job.started_at).total_seconds(),
            total_seconds=time.monotonic() - began,
        )


def _client(settings: Settings) -> AsyncClient:
    if settings.api_key is None:
        raise SettingsError("canary_seconds is set, and no api_key: canaries go through the API")
    return AsyncClient(settings.api_url, key=settings.api_key.get_secret_value())
