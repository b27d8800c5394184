"""Lets one signal end a program in order, however many more come meanwhile."""

from __future__ import annotations

import signal
from types import FrameType

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_in_order() -> None:
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP from now on; later ones disturb no clean-up."""
    for number in _ENDINGS:
        signal.signal(number, _interrupt)


def _interrupt(_: int, __: FrameType | None) -> None:
    for number in _ENDINGS:
        # What is started meanwhile does not inherit a handler, as it would SIG_IGN.
        signal.signal(number, _nothing)
    raise KeyboardInterrupt


def _nothing(_: int, __: FrameType | None) -> None:
    """The clean-up is under way."""
