"""`make profile`: flame graphs of API, worker, one of its children and dispatcher while they are loaded."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contestant import Contestant, up
from benchmarks.ground import private_ground
from benchmarks.keeping import RESULTS
from benchmarks.measure import warm_up
from benchmarks.orders import How, Submit, Work
from benchmarks.roster import PLATFORM
from tests.native.accounting import children_of

_SECONDS = 15
_PER_SECOND = 100
_LEAD_SECONDS = 1.0
_SPARE_SECONDS = 60.0
# More than can be taken in meanwhile: whatever is left when the time is over is dropped with the platform.
_BULK_JOBS, _SINGLE_JOBS, _LANES = 400_000, 100_000, 8
# Queues so shallow that jobs wait for room, and the dispatcher has to let them go.
_ENTRY = dataclasses.replace(PLATFORM, settings={**(PLATFORM.settings or {}), "queue_limit_messages": 500})
_REFUSED = 2
_SPY = str(Path(sys.executable).with_name("py-spy"))


class Refused(Exception):
    """The profiler could not look into a process."""


def main() -> int:
    """Load a platform, watch it, and write the pictures; 2 when the profiler may not look into other processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--seconds", type=int, default=_SECONDS, help="how long it is watched under load")
    seconds: int = parser.parse_args().seconds
    try:
        with private_ground() as ground, up(ground, _ENTRY) as side:
            warm_up(side)
            _load(side)
            time.sleep(_LEAD_SECONDS)
            pictures = record(_watched(side), seconds, RESULTS)
    except Refused as error:
        print(error, file=sys.stderr)
        return _REFUSED
    for picture in pictures:
        print(picture)
    return 0


def _load(side: Contestant) -> None:
    for agent, how, count, lanes in (
        (side.agent, How.BULK, _BULK_JOBS, 0),
        (side.new_agent(), How.EACH, _SINGLE_JOBS, _LANES),
    ):
        numbers = side.next_numbers(count)
        agent.submit(Submit(work=Work.NOOP, first=numbers.start, count=count, how=how, lanes=lanes))


def _watched(side: Contestant) -> dict[str, int]:
    pids = {process.command.name.removeprefix("the "): process.pid for process in side.processes}
    child = min(children_of(pids["worker"]))
    # One of several, where the API runs as several.
    api = min(children_of(pids["api"]), default=pids["api"])
    return {"api": api, "worker": pids["worker"], "child": child, "dispatcher": pids["dispatcher"]}


def record(watched: Mapping[str, int], seconds: int, folder: Path) -> list[Path]:
    """Draw a flame graph of each of these processes, all at the same time.

    Raises Refused with what to do when the system does not allow it.
    """
    folder.mkdir(exist_ok=True)
    pictures = {name: folder / f"profile-{name}.svg" for name in watched}
    with ExitStack() as cleanup:
        spies = {name: _spy(pid, seconds, pictures[name], cleanup) for name, pid in watched.items()}
        for name, spy in spies.items():
            said, _ = spy.communicate(timeout=seconds + _SPARE_SECONDS)
            if spy.returncode != 0:
                last = said.strip().splitlines()[-1] if said.strip() else "no reason given"
                raise Refused(
                    f"py-spy could not look into the {name}: {last}\n"
                    "It reads the memory of other processes: run it as root, or with kernel.yama.ptrace_scope=0, "
                    "in a container with --cap-add SYS_PTRACE."
                )
    return list(pictures.values())


def _spy(pid: int, seconds: int, picture: Path, cleanup: ExitStack) -> subprocess.Popen[str]:
    arguments = {"pid": pid, "duration": seconds, "rate": _PER_SECOND, "output": picture}
    # Not blocking: what is watched goes on while it is read, at the price of a wrong stack now and then.
    spy = subprocess.Popen(
        [_SPY, "record", "--nonblocking", *(f"--{name}={value}" for name, value in arguments.items())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    cleanup.callback(spy.kill)
    return spy


if __name__ == "__main__":
    sys.exit(main())
