"""The command line: `taskplatform …`; see docs/cli.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_BAD_USAGE = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: 0 ok, 1 it failed, 2 bad usage or settings, 3 the platform is away."""
    _open_what_is_closed()
    try:
        from taskplatform.cli.app import run
    except KeyboardInterrupt:
        return _INTERRUPTED
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"taskplatform: {missing.name} is missing; the command line needs taskplatform[server]\n")
        return _BAD_USAGE
    return run(sys.argv[1:] if arguments is None else arguments)


def _open_what_is_closed() -> None:
    # Python has no stream where the caller closed one, and the next socket would get its number.
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
