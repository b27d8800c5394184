"""Keeps a set of processes running: starts them, awaits them, starts again what dies, and stops them in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from signal import Signals
from typing import Protocol
from urllib.parse import urlsplit

from taskplatform.servers import Command, Process, ServerError

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""What ran this long has earned to be started again without a wait."""
_HEALTH_SECONDS = 2.0
_POLL_SECONDS = 0.05


class Part(Protocol):
    """What can be kept running: a server, or a service of ours."""

    @property
    def process(self) -> Process:
        """The process as it was started last."""
        ...

    def start(self) -> None:
        """Start it; raises ServerError when that fails."""
        ...

    def stop(self) -> None:
        """Ask it to end, and end it when it does not in time. May be called at any time, and again."""
        ...


class Service:
    """A process that answers 200 at `health_url` when it is well, and has `stop_seconds` to end by itself."""

    def __init__(self, command: Command, health_url: str, *, stop_seconds: float = 10.0) -> None:
        self.process = Process(command)
        self._health = urlsplit(health_url)
        self._stop_seconds = stop_seconds

    def start(self) -> None:
        """Start the process without waiting until it is well."""
        self.process.start()

    def stop(self) -> None:
        """Ask the process to end, and end it when it does not in time."""
        self.process.stop(within_seconds=self._stop_seconds)

    def well(self) -> bool:
        """Tell whether it answers that it is well."""
        # Not by urllib, which would ask a proxy that the environment names.
        connection = HTTPConnection(self._health.hostname or "", self._health.port, timeout=_HEALTH_SECONDS)
        try:
            connection.request("GET", self._health.path)
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def await_well(self, deadline: float) -> None:
        """Return when it is well; raise ServerError when it dies or the (monotonic) deadline passes."""
        while True:
            # Asked first: when it has died over a port that is taken, somebody else may answer there.
            if (status := self.process.wait(0)) is not None:
                raise self._trouble(f"{ending(status)} before it was ready")
            if self.well():
                return
            if time.monotonic() > deadline:
                raise self._trouble("was not ready in time")
            time.sleep(_POLL_SECONDS)

    def _trouble(self, what: str) -> ServerError:
        command = self.process.command
        return ServerError(f"{command.name} {what}; the end of {command.log}:\n{self.process.log_tail()}")


class Supervisor:
    """Keeps parts running under the name of each, and tells in a line what died. Not safe to share between threads."""

    def __init__(self, tell: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    @property
    def processes(self) -> Mapping[str, Process]:
        """The process of every part by its name."""
        return {name: kept.part.process for name, kept in self._kept.items()}

    def start(self, name: str, part: Part) -> None:
        """Start a part and keep it; raises ServerError when it does not start."""
        # Kept first: an interrupt while it starts must find it when everything is stopped.
        self._kept[name] = _Kept(part, self._clock())
        part.start()

    def start_together(self, services: Mapping[str, Service], within_seconds: float) -> None:
        """Start services at once and return when all are well.

        Raises ServerError for the first that dies or takes too long; `stop` then ends the others.
        """
        for name, service in services.items():
            self.start(name, service)
        deadline = time.monotonic() + within_seconds
        for service in services.values():
            service.await_well(deadline)

    def watch_once(self) -> None:
        """Look after every part once: start again what has died, each after a wait that grows while it keeps dying."""
        now = self._clock()
        for name, kept in self._kept.items():
            if line := kept.look(now):
                self._tell(f"{name} {line}")

    def stop(self) -> None:
        """Stop all, the one that was started last first; each is asked once the one before has ended."""
        while self._kept:
            _, kept = self._kept.popitem()
            kept.part.stop()


class _Kept:
    def __init__(self, part: Part, now: float) -> None:
        self.part = part
        self._started = now
        self._wait_seconds = 0.0
        self._again_at: float | None = None

    def look(self, now: float) -> str | None:
        if self._again_at is None:
            process = self.part.process
            if process.alive:
                return None
            process.sweep()
            how = ending(process.wait(0) or 0)
            return f"{how}{self._put_off(now)}; its log: {process.command.log}"
        if now < self._again_at:
            return None
        self.part.process.kill()
        try:
            self.part.start()
        except ServerError as error:
            return f"did not start{self._put_off(now)}: {error}"
        self._again_at = None
        self._started = now
        return None

    def _put_off(self, now: float) -> str:
        doubled = min(max(2 * self._wait_seconds, FIRST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
        steady = self._again_at is None and now - self._started > STEADY_SECONDS
        self._wait_seconds = 0.0 if steady else doubled
        self._again_at = now + self._wait_seconds
        return f" and is started again in {self._wait_seconds:g} s" if self._wait_seconds else " and is started again"


def ending(status: int) -> str:
    """Say how a process ended, from its exit status as Popen gives it."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
