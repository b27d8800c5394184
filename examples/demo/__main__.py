"""`python -m examples.demo`: runs real jobs on a platform of their own; exit status 0 if all went well."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from rich.console import Console

from examples.demo.run import run
from taskplatform.errors import TaskplatformError

_INTERRUPTED = 130


def main() -> int:
    """Run the demo; gives the exit status."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(options.data_dir, options.within, Console(soft_wrap=True, highlight=False, markup=False))
    except KeyboardInterrupt:
        sys.stderr.write("The demo was interrupted\n")
        return _INTERRUPTED
    except TaskplatformError as error:
        sys.stderr.write(f"The demo failed: {error}\n")
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="Run real jobs, with faults.")
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".taskplatform/demo"), help="emptied first; default %(default)s"
    )
    parser.add_argument(
        "--within", type=float, default=120.0, metavar="SECONDS", help="time for the jobs; default %(default)s"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
