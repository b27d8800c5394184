"""`make faults-ha`: does everything that may happen to the parts of the platform, one run each; `[NAME …]`."""

from __future__ import annotations

import secrets
import sys
import time

from tests.ha.capacity import capacity
from tests.ha.faults import Fault, faults
from tests.ha.run import Pace, Verdict, run
from tests.ha.servers import HaServers, ha_servers

_FROZEN_SECONDS = 90.0
_SHOWN_CASES = 5
_LOAD = 0.5
"""The share of what the platform can do at most that is asked of it."""

_HEAD = (
    "fault                     accepted  lost  duplicate  second"
    "   keyed  unkeyed  starts   reads  recovered  neighbours"
)


def main() -> int:
    """Carry out one run for each fault that is named, or for all; 0 when every promise was kept."""
    known = faults(_FROZEN_SECONDS)
    named = sys.argv[1:] or list(known)
    if unknown := [name for name in named if name not in known]:
        sys.stderr.write(f"faults-ha: no such fault: {', '.join(unknown)}; there are: {', '.join(known)}\n")
        return 2
    seed = secrets.randbelow(1_000_000)
    lines, kept = [], True
    with ha_servers() as servers:
        most = capacity(servers, seed)
        pace = Pace(jobs_per_second=round(most * _LOAD))
        _tell(f"seed {seed}: {most:.0f} jobs/s at most; one run a fault with {pace.jobs_per_second:g} jobs/s")
        for name in named:
            verdict = _run(servers, known[name], seed, pace)
            kept = kept and verdict.kept
            lines.append(line(name, verdict))
    _tell("")
    _tell(f"{_HEAD}\n" + "\n".join(lines))
    return 0 if kept else 1


def line(name: str, verdict: Verdict) -> str:
    """Give one line of the table: the count of a run, and the longest interruptions in seconds."""
    ledger, felt = verdict.ledger, verdict.felt[name]
    neighbours = "-" if verdict.neighbours is None else f"{verdict.neighbours:.2%}"
    return (
        f"{name:24} {ledger.accepted:9} {len(ledger.lost):5} {len(ledger.duplicate_keys):10} "
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
