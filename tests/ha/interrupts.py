"""Lets one signal end a program in order, however many more come meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_in_order() -> None:
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP from now on; later ones disturb no clean-up.

    One that the program was started to ignore, as `nohup` does, is ignored still.
    """
    _answer_with(_interrupt)


def _interrupt(_: int, __: FrameType | None) -> None:
    # What is started meanwhile does not inherit a handler, as it would SIG_IGN.
    _answer_with(_nothing)
    raise KeyboardInterrupt


def _answer_with(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in _ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _nothing(_: int, __: FrameType | None) -> None:
    """The clean-up is under way."""
