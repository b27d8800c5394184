"""What it costs to be watched: the same worker with Flower attached and its events on, and without, round by round."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from statistics import median

import httpx2

from benchmarks.contestant import Contestant, up
from benchmarks.ground import private_ground
from benchmarks.measure import play, verify, warm_up
from benchmarks.orders import Work
from benchmarks.roster import PLATFORM
from tests.fixtures.waiting import eventually
from tests.native.part import Part
from tests.native.stack import Stack
from workers.events import WATCHED_SECONDS

LEAST_RATIO = 0.9
ROUNDS = 5
_SILENT_SECONDS = WATCHED_SECONDS + 3.0
"""After so long without anybody who asks, a worker tells nobody anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Jobs a second in one round."""

    watched: float
    alone: float

    @property
    def ratio(self) -> float:
        """How much of it is left while somebody watches."""
        return self.watched / self.alone


def main() -> int:
    """Measure, print; 0 when the median of the rounds is enough."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flower", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--jobs", type=int, default=PLATFORM.noops)
    wanted = parser.parse_args()
    with private_ground() as ground, up(ground, PLATFORM) as side:
        warm_up(side)
        pairs = [_pair(side, number, wanted.jobs) for number in range(wanted.rounds)]
        verify(side)
    alone, watched = median(pair.alone for pair in pairs), median(pair.watched for pair in pairs)
    ratio = median(pair.ratio for pair in pairs)
    print(f"alone {alone:,.0f}/s  watched {watched:,.0f}/s  ratio, median of {len(pairs)} rounds: {ratio:.2f}")
    return 0 if ratio >= LEAST_RATIO else 1


def _pair(side: Contestant, number: int, jobs: int) -> Pair:
    # In turn, so that what changes with time favours neither.
    if number % 2:
        watched = _watched(side, jobs)
        pair = Pair(watched=watched, alone=_speed(side, jobs))
    else:
        alone = _speed(side, jobs)
        pair = Pair(watched=_watched(side, jobs), alone=alone)
    print(
        f"round {number + 1}  alone {pair.alone:7,.0f}/s  watched {pair.watched:7,.0f}/s  {pair.ratio:.2f}", flush=True
    )
    return pair


def _watched(side: Contestant, jobs: int) -> float:
    stack = side.stack
    if stack is None:
        raise TypeError("only the platform has a Flower")
    flower = stack.new_flower()
    flower.start()
    try:
        flower.await_ready()
        eventually(lambda: _sees_a_worker(stack, flower), within_seconds=60)
        return _speed(side, jobs)
    finally:
        flower.stop()
        time.sleep(_SILENT_SECONDS)


def _speed(side: Contestant, jobs: int) -> float:
    return play(side, Work.NOOP, jobs).jobs_per_second


def _sees_a_worker(stack: Stack, flower: Part) -> bool:
    url = f"http://127.0.0.1:{flower.health_port}/flower/workers"
    answer = httpx2.get(url, params={"json": 1}, headers={"Authorization": f"Bearer {stack.key}"}, timeout=30)
    return answer.status_code == 200 and bool(answer.json().get("data"))


if __name__ == "__main__":
    sys.exit(main())
