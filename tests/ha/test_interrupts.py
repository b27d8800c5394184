"""A program ends in order at a signal, and goes on at one that it was started to ignore."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import os, signal
from tests.ha.interrupts import end_in_order

end_in_order()
os.kill(os.getpid(), signal.SIGHUP)
print("goes on", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("too far")
"""


def test_a_program_under_nohup_outlives_its_terminal_and_ends_when_it_is_told() -> None:
    done = subprocess.run(
        ["nohup", sys.executable, "-c", _PROGRAM],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr.splitlines()[-1]) == ("goes on\n", "KeyboardInterrupt")
