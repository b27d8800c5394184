"""The autoscaler's process, and that of the agent which holds the Docker socket for it."""

from __future__ import annotations

import secrets
import signal
import socket
import threading
from contextlib import AsyncExitStack, suppress

from taskplatform.autoscale.agent import Agent, Engine, serve
from taskplatform.autoscale.loop import Autoscaler, Parts
from taskplatform.autoscale.rules import plans_of
from taskplatform.errors import OutcomeUnknown, SettingsError, Unavailable
from taskplatform.metrics import Part
from taskplatform.playing import play, stop_by_signal
from taskplatform.settings import Settings
from taskplatform.telemetry import configure_logging, logger, new_metrics
from taskplatform.wiring import new_broker, new_driver, new_store


async def run_autoscaler(settings: Settings) -> None:
    """Scale until SIGTERM or SIGINT. Raises SettingsError, and OSError when the metrics port is taken."""
    configure_logging(settings.log_level, settings.log_format, Part.AUTOSCALER)
    plans = plans_of(settings)
    stop = stop_by_signal()
    metrics = new_metrics(Part.AUTOSCALER)
    async with AsyncExitStack() as stack:
        store = new_store(settings, Part.AUTOSCALER)
        await store.open()
        stack.push_async_callback(store.close)
        broker = new_broker(settings)
        await broker.start()
        stack.push_async_callback(broker.stop)
        metrics.mode.labels(component="broker").set_function(lambda: float(not broker.connected))
        driver = new_driver(settings, store)
        stack.push_async_callback(driver.close)
        holder = f"{socket.gethostname()}.{secrets.token_hex(4)}"
        role = Autoscaler(store, broker, driver, plans, Parts(metrics=metrics, settings=settings, holder=holder))
        await play([role], settings, metrics, stop)
        with suppress(Unavailable, OutcomeUnknown):
            await role.stop()


def run_agent(settings: Settings, *, project: str, docker_socket: str, host: str, port: int) -> None:
    """Serve the agent until SIGTERM or SIGINT. Raises SettingsError without a token, and OSError."""
    configure_logging(settings.log_level, settings.log_format, "scaler-agent")
    if settings.autoscale_agent_token is None:
        raise SettingsError("autoscale_agent_token is not set: the agent lets nobody in without it")
    services = {settings.autoscale_service.format(pool=pool) for pool in settings.pools}
    agent = Agent(Engine(docker_socket), project, services, settings.autoscale_max_workers)
    server = serve(agent, settings.autoscale_agent_token.get_secret_value(), host, port)

    def stop(*_: object) -> None:
        # It waits for the loop to end, so not in the thread that the loop runs in.
        threading.Thread(target=server.shutdown).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    logger(__name__).info("Holding the engine's socket", project=project, services=sorted(services))
    with server:
        server.serve_forever()
