"""Processor time and memory of process trees."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.native.accounting import Meter, is_alive, tree_of, usage_of

_BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"
_PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, '-c', {_BUSY!r}], check=True)
child = subprocess.Popen(['sleep', '60'])
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
child.wait()
"""


@contextmanager
def _family() -> Iterator[tuple[subprocess.Popen[str], int]]:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        try:
            yield parent, int(parent.stdout.readline())
        finally:
            parent.communicate()


def test_a_tree_is_the_process_and_all_below_it() -> None:
    with _family() as (parent, child):
        assert tree_of(parent.pid) == [parent.pid, child]


def test_the_time_of_a_child_that_has_ended_is_counted() -> None:
    with _family() as (parent, _):
        assert usage_of([parent.pid]).cpu_seconds >= 0.3


def test_banked_time_outlives_its_process() -> None:
    meter = Meter()
    with _family() as (parent, _):
        meter.bank([parent.pid])

    assert meter.read([]).cpu_seconds >= 0.3


def test_a_process_that_has_ended_is_not_alive() -> None:
    with _family() as (parent, child):
        assert is_alive(child)

    assert not is_alive(child)
    assert usage_of([parent.pid]).rss_bytes == 0
