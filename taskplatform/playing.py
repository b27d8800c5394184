"""Plays roles in one process until it is told to stop, and shows how they are on the metrics port."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from taskplatform.cancelling import cancel
from taskplatform.probe import Health, Probe
from taskplatform.pulse import FAINT_SECONDS, Pulse
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.telemetry import Metrics, logger

STUCK_SECONDS = 60.0
"""How much longer than its pause a role may be silent before the process calls itself ill."""
STOP_SECONDS = 5.0
"""How much longer than a publish a stopping role gets to finish its round."""


def stop_by_signal() -> asyncio.Event:
    """Give an event that SIGTERM or SIGINT sets."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def play(roles: Sequence[Role], settings: Settings, metrics: Metrics, stop: asyncio.Event) -> None:
    """Play all roles until `stop` is set; returns when every round that had begun is over.

    Raises OSError when the metrics port is taken.
    """
    log = logger("taskplatform.playing")
    async with AsyncExitStack() as stack:
        pulse = Pulse(metrics)
        await stack.enter_async_context(pulse.listening())
        if settings.metrics_port:
            probe = Probe(metrics, health_of(roles, pulse))
            port = await stack.enter_async_context(probe.serve(settings.metrics_host, settings.metrics_port))
            log.info("Serving metrics", host=settings.metrics_host, port=port)
        log.info("Playing", roles=[role.title for role in roles], pools=list(settings.pools))
        tasks = [asyncio.create_task(role.run(stop), name=role.title) for role in roles]
        await stop.wait()
        # A round that is cut off here is repeated by the next process, like one that a crash cut off.
        _, late = await asyncio.wait(tasks, timeout=settings.publish_timeout_seconds + STOP_SECONDS)
        await cancel(*tasks)
        log.info("Stopped", cut_off=[task.get_name() for task in late])


def health_of(roles: Sequence[Role], pulse: Pulse) -> Health:
    """Say what each health page of a process with these roles asks.

    Of a role that is played for several Postgres clusters it is enough that it can work in one of them.
    """

    def live() -> list[str]:
        return [*silent(roles), *([f"the event loop was {FAINT_SECONDS:g} s late"] if pulse.faint else [])]

    def ready() -> list[str]:
        return live() + [
            f"{role.title}: {role.trouble}" for role in _all_of_a_name(roles, lambda role: role.trouble != "")
        ]

    def started() -> list[str]:
        return [f"{role.title} has ended no round well" for role in _all_of_a_name(roles, lambda role: not role.began)]

    return Health(live=live, ready=ready, started=started)


def _all_of_a_name(roles: Sequence[Role], ill: Callable[[Role], bool]) -> list[Role]:
    well = {role.name for role in roles if not ill(role)}
    return [role for role in roles if role.name not in well]


def silent(roles: Sequence[Role]) -> list[str]:
    """Name the roles that have not ended a round for far too long."""
    now = time.monotonic()
    return [
        f"{role.title} has not ended a round for {now - role.last_round:.0f} s"
        for role in roles
        if now - role.last_round > role.pause_seconds + STUCK_SECONDS
    ]
