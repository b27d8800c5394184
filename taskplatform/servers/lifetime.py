"""Runs a server for as long as a `with` statement lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar


class Startable(Protocol):
    """What every server is."""

    def start(self) -> None:
        """Start it, and return when it is ready; raise ServerError."""

    def stop(self) -> None:
        """End it. May be called at any time, and again."""


S = TypeVar("S", bound=Startable)


@contextmanager
def started(server: S) -> Iterator[S]:
    """Start a server on the way into a `with` statement, and stop it on the way out. Raises ServerError."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
