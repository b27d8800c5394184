"""One process of the platform on the native stack: started, awaited, killed in several ways, and its use added up."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

from taskplatform.servers import Command, Process, ServerError
from tests.fixtures.waiting import eventually
from tests.native.accounting import Meter, Usage, is_alive, tree_of

_HEALTH_SECONDS = 2.0


@dataclass(slots=True)
class Part:
    """A process with a health page; it is ready when that answers 200."""

    command: Command
    health_port: int
    health_path: str
    process: Process = field(init=False)
    _meter: Meter = field(default_factory=Meter, init=False)
    _orphans: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.process = Process(self.command)

    def start(self) -> None:
        """Start it without waiting until it is ready."""
        self.process.start()

    def await_ready(self, within_seconds: float = 60.0) -> None:
        """Return when it is ready. Raises ServerError with the end of its log when it dies or is too late."""
        try:
            eventually(lambda: not self.process.alive or self.ready(), within_seconds=within_seconds)
        except AssertionError:
            raise ServerError(f"{self.command.name} is not ready: {self.process.log_tail()}") from None
        if not self.process.alive:
            raise ServerError(f"{self.command.name} died at its start: {self.process.log_tail()}")

    def ready(self) -> bool:
        """Tell whether it says that it is well."""
        connection = HTTPConnection("127.0.0.1", self.health_port, timeout=_HEALTH_SECONDS)
        try:
            connection.request("GET", self.health_path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def stop(self, within_seconds: float = 30.0) -> None:
        """Ask it to end, and end what is left of it, orphans of earlier deaths too."""
        self._bank()
        self.process.stop(within_seconds=within_seconds)
        for pid in self.orphans():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def children(self) -> list[int]:
        """Give the living processes below it."""
        if not self.process.alive:
            return []
        return [pid for pid in tree_of(self.process.pid)[1:] if is_alive(pid)]

    def orphans(self) -> list[int]:
        """Give the children of killed parents that still live."""
        return sorted(pid for pid in self._orphans if is_alive(pid))

    def kill_and_restart(self) -> None:
        """SIGKILL the process alone, not what is below it, and start another at once."""
        self._orphans.update(self.children())
        self._bank()
        os.kill(self.process.pid, signal.SIGKILL)
        # Reaps the dead process and forgets it; its tree is no longer known and lives on.
        self.process.wait(10.0)
        self.process.kill()
        self.start()

    def usage(self) -> Usage:
        """Give what it and its predecessors have used."""
        return self._meter.read([self.process.pid] if self.process.alive else [])

    def _bank(self) -> None:
        if self.process.alive:
            self._meter.bank([self.process.pid])
