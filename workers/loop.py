"""The event loop as the worker's parts see it: file descriptors and timers of Celery's hub that survive its resets."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol


class Hub(Protocol):
    """What is used of `kombu.asynchronous.Hub`."""

    def add_reader(self, fds: int, callback: Callable[..., Any], *args: Any) -> None:
        """Call back when the descriptor can be read."""

    def add_writer(self, fds: int, callback: Callable[..., Any], *args: Any) -> None:
        """Call back when the descriptor can be written to."""

    def remove(self, fd: int) -> None:
        """Forget the descriptor."""

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Call back in the loop; safe from any thread."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Call back after so many seconds."""


class Alarm:
    """One call-back in the future at most; setting it again moves it."""

    def __init__(self, loop: Loop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._entry: Any = None
        self._after_seconds = 0.0

    @property
    def is_set(self) -> bool:
        """Whether it is going to ring."""
        return self._entry is not None

    def set(self, after_seconds: float) -> None:
        """Ring after so many seconds."""
        self.clear()
        self._after_seconds = after_seconds
        hub = self._loop.hub
        if hub is not None:
            self._entry = hub.call_later(after_seconds, self._ring)

    def clear(self) -> None:
        """Do not ring."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def renew(self) -> None:
        """Set it again if it was set: whoever reset the hub may have cancelled it."""
        if self._entry is not None:
            self.set(self._after_seconds)

    def _ring(self) -> None:
        self._entry = None
        self._call()


class Loop:
    """Keeps what is registered, and registers it anew on the hub that a consumer start brings."""

    def __init__(self) -> None:
        self.hub: Hub | None = None
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, tuple[int, Callable[[], None]]] = {}
        self._alarms: list[Alarm] = []
        self._soon: deque[Callable[[], None]] = deque()

    def alarm(self, call: Callable[[], None]) -> Alarm:
        """Make an alarm that lives as long as the loop."""
        alarm = Alarm(self, call)
        self._alarms.append(alarm)
        return alarm

    def attach(self, hub: Hub) -> None:
        """Go on with this hub. A connection loss resets it: it forgets descriptors and cancels timers."""
        self.hub = hub
        for fd, call in self._readers.items():
            hub.add_reader(fd, call)
        for write_fd, call in self._writers.values():
            hub.add_writer(write_fd, call)
        for alarm in self._alarms:
            alarm.renew()
        if self._soon:
            hub.call_soon(self._catch_up)

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        """Call whenever the descriptor can be read."""
        self._readers[fd] = call
        if self.hub is not None:
            self.hub.add_reader(fd, call)

    def remove_reader(self, fd: int) -> None:
        """Stop that; may be called twice."""
        if self._readers.pop(fd, None) is not None and self.hub is not None:
            self.hub.remove(fd)

    def add_writer(self, fd: int, call: Callable[[], None]) -> None:
        """Call as long as the descriptor can be written to; may be called twice."""
        if fd in self._writers:
            return
        # The hub's poller takes a descriptor once: reading and writing need one each.
        write_fd = os.dup(fd)
        self._writers[fd] = write_fd, call
        if self.hub is not None:
            self.hub.add_writer(write_fd, call)

    def remove_writer(self, fd: int) -> None:
        """Stop that; may be called twice."""
        found = self._writers.pop(fd, None)
        if found is not None:
            if self.hub is not None:
                self.hub.remove(found[0])
            os.close(found[0])

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call in the loop, in turn; safe from any thread.

        Nothing is forgotten when one of the calls raises: the hub drops what it was about to call, as it does when a
        broker connection ends.
        """
        self._soon.append(call)
        if self.hub is not None:
            self.hub.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def descriptors(self) -> list[int]:
        """Give every descriptor registered here."""
        return [*self._readers, *(write_fd for write_fd, _ in self._writers.values())]
