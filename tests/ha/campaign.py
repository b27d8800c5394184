"""`make faults-ha`: does everything that may happen to the parts of the platform, one run each."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Iterable, Sequence

from taskplatform.servers import ServerError
from tests.ha.capacity import capacity
from tests.ha.faults import Fault, faults
from tests.ha.interrupts import end_in_order
from tests.ha.run import Pace, Verdict, run
from tests.ha.servers import HaServers, ha_servers

_FROZEN_SECONDS = 90.0
_SHOWN_CASES = 5
_LOAD = 0.5
"""The share of what the platform can do at most that is asked of it."""
_INTERRUPTED = 130

_HEAD = (
    "fault                       accepted  lost  duplicate  second"
    "   keyed  unkeyed  starts   reads  recovered  neighbours"
)
_EXAMPLE = """example:
  python -m tests.ha.campaign "Patroni and primary killed" "primary frozen"

Each run is a line of the table: jobs, then the longest interruptions in seconds. One in which a promise was broken, or
that took longer than is allowed, is BROKEN, and the exit status 1.
"""


def main() -> int:
    """Carry out one run for each fault that is named, or for all; 0 when every promise was kept."""
    known = faults(_FROZEN_SECONDS)
    asked = _arguments(known)
    end_in_order()
    try:
        return _campaign([known[name] for name in asked.faults or known], asked.jobs_per_second)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except ServerError as error:
        sys.stderr.write(f"faults-ha: {error}\n")
        return 1


def _arguments(known: Iterable[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.ha.campaign",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "faults", nargs="*", choices=list(known), metavar="FAULT", help=f"all, or some of: {'; '.join(known)}"
    )
    parser.add_argument(
        "--jobs-per-second",
        type=float,
        help="the load; without it, half of what the platform ends at most is measured first",
    )
    return parser.parse_args()


def _campaign(chosen: Sequence[Fault], jobs_per_second: float | None) -> int:
    seed = secrets.randbelow(1_000_000)
    lines, kept = [], True
    with ha_servers() as servers:
        if jobs_per_second is None:
            most = capacity(servers, seed)
            _tell(f"{most:.0f} jobs/s at most")
            jobs_per_second = round(most * _LOAD)
        pace = Pace(jobs_per_second=jobs_per_second)
        _tell(f"seed {seed}: one run a fault with {pace.jobs_per_second:g} jobs/s")
        try:
            for fault in chosen:
                verdict = _run(servers, fault, seed, pace)
                kept = kept and verdict.kept
                lines.append(line(fault.name, verdict))
        finally:
            _tell("\n" + "\n".join([_HEAD, *lines]))
    return 0 if kept else 1


def line(name: str, verdict: Verdict) -> str:
    """Give one line of the table: the count of a run, and the longest interruptions in seconds."""
    ledger, felt = verdict.ledger, verdict.felt[name]
    neighbours = "-" if verdict.neighbours is None else f"{verdict.neighbours:.2%}"
    return (
        f"{name:26} {ledger.accepted:9} {len(ledger.lost):5} {len(ledger.duplicate_keys):10} "
        f"{len(ledger.second_results):7} {felt.keyed:7.1f} {felt.unkeyed:8.1f} {felt.starts:7.1f} {felt.reads:7.1f} "
        f"{felt.recovered:10.1f} {neighbours:>11}" + ("" if verdict.kept else "  BROKEN")
    )


def report(verdict: Verdict) -> list[str]:
    """Name everything that was not as promised."""
    ledger = verdict.ledger
    broken = [f"{promise}: {case}" for promise, cases in ledger.breaches.items() for case in cases[:_SHOWN_CASES]]
    return [f"BROKEN {case}" for case in [*broken, *verdict.troubles, *verdict.slow]]


def _run(servers: HaServers, fault: Fault, seed: int, pace: Pace) -> Verdict:
    began = time.monotonic()
    verdict = run(servers, [fault], seed, pace, _tell)
    for case in report(verdict):
        _tell(case)
    _tell(f"{verdict.ledger.line} in {time.monotonic() - began:.0f} s")
    _tell(f"{_HEAD}\n{line(fault.name, verdict)}")
    return verdict


def _tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
