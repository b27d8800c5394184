"""What goes wrong with one side is noted, and costs nobody else's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def endured(what: str, failures: list[str], tell: Callable[[str], None]) -> Iterator[None]:
    """Add the first line of whatever is raised to `failures`, tell all of it, and go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - Servers, drivers and agents fail in ways of their own.
        failures.append(f"{what}: {(str(error) or repr(error)).splitlines()[0]}")
        tell(f"{what}: {str(error) or repr(error)}")
