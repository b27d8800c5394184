"""`make bench-idle`: what a whole embedded platform uses while it has nothing to do."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.keeping import LATEST, PARTIAL, publish
from benchmarks.outcome import Idle, Resting, machine, this_moment
from benchmarks.report import idle_part
from tests.native.accounting import children_of, proportional_bytes, tree_of, usage_of

_FULL_SECONDS = 30.0
_SETTLE_SECONDS = 10.0
_READY = "Ready after"
_NAMES = {
    "postgres": "Postgres",
    "valkey": "Valkey",
    "workers.flower": "Flower",
    "dispatcher": "dispatcher",
    "workers": "worker",
    "api": "API",
}
_OWNER, _GUARD = "up", "guards"
_MIB = 2**20


def main() -> int:
    """Start a platform, let it rest, print and keep what it used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=_FULL_SECONDS, help="how long it is watched")
    seconds: float = parser.parse_args().seconds
    found = measure(seconds)
    name = LATEST if seconds >= _FULL_SECONDS else PARTIAL
    publish(name, lambda record: msgspec.structs.replace(record, idle=found))
    print("\n".join(idle_part(found)))
    return 0


def measure(seconds: float, *, settle_seconds: float = _SETTLE_SECONDS) -> Idle:
    """Watch a platform of its own. Raises RuntimeError when it does not start."""
    with tempfile.TemporaryDirectory(prefix="taskplatform-idle-") as folder:
        # Postgres does not run as root, so another account has to pass through.
        Path(folder).chmod(0o711)
        with _platform(Path(folder)) as pid:
            time.sleep(settle_seconds)
            trees = _parts(pid)
            before = {name: usage_of(roots, below=name != _OWNER).cpu_seconds for name, roots in trees.items()}
            began = time.monotonic()
            time.sleep(seconds)
            watched = time.monotonic() - began
            parts = [_resting(name, roots, before[name], watched) for name, roots in trees.items()]
    return Idle(
        made_at=this_moment(),
        machine=machine(),
        seconds=watched,
        parts=sorted(parts, key=lambda part: -part.rss_mib),
        cpu_percent=sum(part.cpu_percent for part in parts),
        rss_mib=sum(part.rss_mib for part in parts),
        pss_mib=sum(part.pss_mib for part in parts),
    )


@contextmanager
def _platform(folder: Path) -> Iterator[int]:
    environment = {**os.environ, "TASKPLATFORM_DATA_DIR": str(folder / "data"), "TASKPLATFORM_TASK_MODULES": ""}
    with subprocess.Popen(
        [sys.executable, "-m", "taskplatform.cli", "up"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            if not any(line.startswith(_READY) for line in process.stdout or ()):
                raise RuntimeError("the platform did not start")
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            if process.stdout is not None:
                process.stdout.read()


def _parts(pid: int) -> dict[str, list[int]]:
    trees: dict[str, list[int]] = {_OWNER: [pid]}
    for child in children_of(pid):
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        name = next((title for word, title in _NAMES.items() if _runs(words, word)), _GUARD)
        trees.setdefault(name, []).append(child)
    return trees


def _runs(words: list[str], what: str) -> bool:
    program = Path(words[0].split(" ")[0].rstrip(":")).name
    return what in program or what in words[1:]


def _resting(name: str, roots: list[int], cpu_before: float, seconds: float) -> Resting:
    # The process that owns all others is counted for itself alone.
    below = name != _OWNER
    usage = usage_of(roots, below=below)
    return Resting(
        name=name,
        processes=sum(len(tree_of(root)) if below else 1 for root in roots),
        cpu_percent=(usage.cpu_seconds - cpu_before) / seconds * 100,
        rss_mib=usage.rss_bytes / _MIB,
        pss_mib=proportional_bytes(roots, below=below) / _MIB,
    )


if __name__ == "__main__":
    sys.exit(main())
