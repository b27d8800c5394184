"""`make bench`: the platform beside its peers, on the same servers in one run, side by side in every round."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

import msgspec

from benchmarks.contestant import PEERS_PYTHON
from benchmarks.keeping import LATEST, PARTIAL, load, publish, save
from benchmarks.measure import Scale
from benchmarks.outcome import Record, machine
from benchmarks.roster import ENTRIES, Entry
from benchmarks.rounds import Rounds

_FULL_ROUNDS = 5
_NOT_FINISHED = 3


def main() -> int:
    """Measure, print and keep; 0 when no side lost anything in any round, 3 when the time was over before the end."""
    wanted = _arguments()
    if not PEERS_PYTHON.exists():
        print("the peers are not installed: make bench-peers", file=sys.stderr)
        return 2
    # Asked to end, it ends like any program that cleans up: no server stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Rounds(
        entries=[entry for entry in ENTRIES if not wanted.only or entry.key in wanted.only],
        scale=Scale(),
        keep=lambda outcome: save(PARTIAL, Record(comparison=outcome)),
        tell=_tell,
    )
    if wanted.resume and not run.resume(load(PARTIAL).comparison):
        print("there is no run of these sides to go on with", file=sys.stderr)
        return 2
    _tell_settings(run.entries)
    finished = run.go(wanted.rounds, wanted.minutes)
    whole = finished and wanted.rounds >= _FULL_ROUNDS and not wanted.only
    name = LATEST if whole else PARTIAL
    text = publish(name, lambda record: msgspec.structs.replace(record, comparison=run.outcome()))
    _tell(f"\n{text}\nkept in benchmarks/results/{name}.json, .md and .svg")
    if not finished:
        _tell("the time is over: go on with --resume")
        return _NOT_FINISHED
    return 1 if run.failures else 0


def _arguments() -> argparse.Namespace:
    known = [entry.key for entry in ENTRIES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_FULL_ROUNDS, help="rounds of all sides")
    parser.add_argument("--only", nargs="+", choices=known, default=[], metavar="SIDE", help=f"of {', '.join(known)}")
    parser.add_argument("--minutes", type=float, default=90.0, help="begin with no side later than this")
    parser.add_argument("--resume", action="store_true", help="go on with the run that was cut off, and try again")
    return parser.parse_args()


def _tell_settings(entries: Sequence[Entry]) -> None:
    found = machine()
    _tell(f"{found.processors} processors ({found.model}); {'; '.join(found.servers)}")
    for entry in entries:
        _tell(f"{entry.title}: {entry.slots}; {entry.options}; a result is {entry.guarantee.result}")


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
