"""Where a server's programs come from, and which of two places is taken."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from taskplatform.servers.errors import ServerMissing


class Source(StrEnum):
    """Where a server's programs come from."""

    SYSTEM = "system"
    WHEEL = "wheel"


def choose(server: str, prefer: Source, places: dict[Source, Path | None]) -> Path:
    """Return the place of the preferred source, or else the other one; raise ServerMissing when there is neither."""
    for path in (places[prefer], *places.values()):
        if path is not None:
            return path
    raise ServerMissing(f"no {server} is installed, neither on this system nor as a wheel")


def in_wheel(package: str, *parts: str) -> Path | None:
    """Return a path inside an installed package, without importing it, or None when it is not there."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders if (path := Path(folder, *parts)).exists()), None)
