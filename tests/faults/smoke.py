"""`make faults-smoke`: kills every part of a loaded platform, again and again, and prints the ledger; `[SEED]`."""

from __future__ import annotations

import secrets
import sys
import time

from tests.faults.plan import kills
from tests.faults.run import SETTINGS, Size, Verdict, run
from tests.native.servers import private_servers

SIZE = Size(jobs=10_000, kills_each=5, over_seconds=100.0, drain_seconds=60.0)
_SHOWN_CASES = 5


def main() -> int:
    """Carry out one run; 0 when every promise was kept."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else secrets.randbelow(1_000_000)
    _tell(f"seed {seed}: {SIZE.jobs} jobs in {SIZE.over_seconds:g} s; settings {SETTINGS}")
    plan = ", ".join(f"{kill.victim} {kill.at_seconds:g}" for kill in kills(seed, SIZE.kills_each, SIZE.over_seconds))
    _tell(f"SIGKILL in seconds: {plan}")
    began = time.monotonic()
    with private_servers() as servers:
        verdict = run(servers, seed, SIZE, _tell)
    _tell(f"{time.monotonic() - began:.0f} s in all")
    for line in report(verdict):
        _tell(line)
    return 0 if verdict.kept else 1


def report(verdict: Verdict) -> list[str]:
    """Give the ledger for people, its one line last."""
    ledger = verdict.ledger
    lines = [f"killed       {', '.join(f'{victim} {count}x' for victim, count in verdict.kills.items())}"]
    lines += [
        f"attempted    {ledger.attempted}",
        f"accepted     {ledger.accepted}",
        f"terminal     {ledger.terminal}",
        f"attempts     {', '.join(f'{count} {ended}' for ended, count in ledger.attempts.items())}",
        f"unknown      {ledger.unknown} requests cut off",
        f"lost         {len(ledger.lost)}",
        f"duplicated   {len(ledger.duplicate_keys)}",
        f"done twice   {ledger.executed_twice}",
    ]
    for promise, cases in ledger.breaches.items():
        lines += [f"BROKEN {promise}: {case}" for case in cases[:_SHOWN_CASES]]
    lines += [f"BROKEN {trouble}" for trouble in verdict.troubles]
    return [*lines, ledger.line]


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
