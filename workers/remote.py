"""Celery's remote control and events, on a thread and a connection of their own: what holds them up holds up no job."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from celery import bootsteps
from celery.events.event import get_exchange
from celery.utils.collections import AttributeDict
from celery.utils.sysinfo import load_average
from celery.utils.time import utcoffset
from celery.worker.control import Panel
from celery.worker.state import SOFTWARE_INFO
from kombu import Producer

from taskplatform.telemetry import logger
from workers.events import Events
from workers.held import Held, Stage
from workers.steps import ParentStep

_HEARTBEAT_SECONDS = 2.0
_WATCHED_LOOK_SECONDS = 0.2
_IDLE_LOOK_SECONDS = 2.0
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 15.0
_STOP_SECONDS = 1.0
_MOST_EVENTS = 256
_MOST_LISTED = 100

# Told by Celery itself, and harmless: they change nothing.
_TOLD = ("report", "conf", "clock", "ping", "stats", "registered", "active_queues")

_log = logger(__name__)


class RemoteStep(bootsteps.StartStopStep):
    """Answers monitors while the worker runs."""

    requires = (ParentStep,)

    def start(self, w: Any) -> None:
        """Begin to listen."""
        self._remote = Remote(w, w.parent.events)
        self._remote.start()

    def stop(self, w: Any) -> None:
        """Say goodbye."""
        self._remote.stop()

    def terminate(self, w: Any) -> None:
        """Say goodbye."""
        self._remote.stop()


class Remote:
    """The thread that speaks to monitors: connected all the time, and silent until somebody asks."""

    def __init__(self, worker: Any, events: Events) -> None:
        self._worker = worker
        self._app = worker.app
        self._name: str = worker.hostname
        self._events = events
        self._stopped = threading.Event()
        self._next_heartbeat = 0.0
        self._thread = threading.Thread(target=self._run, name="remote", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop it, unless the broker holds it up: then it ends with the process."""
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        wait = _FIRST_WAIT_SECONDS
        while not self._stopped.is_set():
            try:
                with self._app.connection_for_write(transport_options={"confirm_publish": False}) as connection:
                    connection.ensure_connection(max_retries=1, interval_start=0)
                    wait = _FIRST_WAIT_SECONDS
                    self._serve(connection)
            except Exception as error:
                # Whatever happens here must not end the worker.
                _log.debug("the connection for remote control was lost", error=repr(error)[:500])
                self._stopped.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def _serve(self, connection: Any) -> None:
        channel = connection.channel()
        mailbox = self._app.control.mailbox
        node = mailbox.Node(self._name, state=self._state(), handlers=_handlers(self), channel=channel)
        # The app's clock has a lock, which a child that is forked meanwhile would inherit locked.
        node.adjust_clock = _nothing
        node.listen()
        events = Producer(channel, exchange=get_exchange(connection, name=self._app.conf.event_exchange))
        self._next_heartbeat = 0.0
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                connection.drain_events(timeout=_WATCHED_LOOK_SECONDS if self._events.on else _IDLE_LOOK_SECONDS)
            if connection.supports_heartbeats:
                connection.heartbeat_check()
            self._events.rest()
            if self._events.on:
                self._tell(events)
        if self._events.on:
            self._publish(events, "worker.offline", {"type": "worker-offline", **self._present()})

    def _tell(self, events: Any) -> None:
        now = time.monotonic()
        if now >= self._next_heartbeat:
            kind = "heartbeat" if self._next_heartbeat else "online"
            self._next_heartbeat = now + _HEARTBEAT_SECONDS
            self._publish(events, f"worker.{kind}", {"type": f"worker-{kind}", **self._present()})
        while told := self._events.take(_MOST_EVENTS):
            common = self._common()
            self._publish(events, "task.multi", [{**common, **event} for event in told])

    def _publish(self, events: Any, routing_key: str, body: Any) -> None:
        # They are worth nothing to whoever was not there to hear them.
        events.publish(
            body,
            routing_key=routing_key,
            serializer="json",
            delivery_mode=1,
            headers={"hostname": self._name},
            declare=[events.exchange],
        )

    def _present(self) -> dict[str, Any]:
        parent = self._worker.parent
        return {
            **self._common(),
            "timestamp": time.time(),
            "freq": _HEARTBEAT_SECONDS,
            "active": parent.pipeline.taken,
            "processed": self._events.processed,
            "loadavg": load_average(),
            **SOFTWARE_INFO,
        }

    def _common(self) -> dict[str, Any]:
        return {"hostname": self._name, "utcoffset": utcoffset(), "pid": os.getpid()}

    def _state(self) -> Any:
        return AttributeDict(app=self._app, hostname=self._name, consumer=self._worker.consumer, tset=set)

    def watch(self, _: Any, **options: Any) -> dict[str, str]:
        """Tell of jobs for a while, first of those that run: whoever asks may have missed their start."""
        self._events.watch()
        self._events.introduce(self._held(Stage.RUNNING)[:_MOST_LISTED])
        return {"ok": "task events enabled"}

    def greet(self, state: Any, **options: Any) -> None:
        """Tell somebody who has just come who is here, and what runs."""
        self._next_heartbeat = 0.0
        self.watch(state)

    def held(self, *stages: Stage) -> list[dict[str, Any]]:
        """Describe the jobs in these stages as Celery describes requests."""
        return [self._described(held) for held in self._held(*stages)[:_MOST_LISTED]]

    def stats(self, state: Any, **options: Any) -> dict[str, Any]:
        """Give Celery's figures of a worker, and how many jobs it has ended."""
        found: dict[str, Any] = self._worker.stats()
        return {**found, "total": {"jobs": self._events.processed}}

    def _described(self, held: Held) -> dict[str, Any]:
        told = self._events.described(held.envelope)
        address = {"exchange": "", "routing_key": told["routing_key"]}
        who = {"hostname": self._name, "worker_pid": os.getpid()}
        return {"id": told["uuid"], "type": told["name"], **told, **who, "delivery_info": address}

    def _held(self, *stages: Stage) -> list[Held]:
        return [held for held in self._worker.parent.pipeline.claimed() if held.stage in stages]


def _handlers(remote: Remote) -> Mapping[str, Callable[..., Any]]:
    known: Mapping[str, Callable[..., Any]] = Panel.data
    ours: dict[str, Callable[..., Any]] = {
        "enable_events": remote.watch,
        "disable_events": lambda _, **options: {"ok": "task events end when nobody asks for them any more"},
        "heartbeat": remote.greet,
        "stats": remote.stats,
        "active": lambda _, **options: remote.held(Stage.RUNNING),
        "reserved": lambda _, **options: remote.held(Stage.CLAIMING, Stage.READY),
        "scheduled": lambda _, **options: [],
        "revoked": lambda _, **options: [],
    }
    told = {name: known[name] for name in _TOLD}
    refused = dict.fromkeys(known, _refuse)
    return MappingProxyType({**refused, **told, **ours})


def _refuse(*_: Any, **__: Any) -> dict[str, str]:
    return {"error": "refused: jobs and workers are changed through the platform, which keeps a record of it"}


def _nothing(_: int) -> None:
    pass
