"""A pool of workers in simulated time: jobs that arrive by a profile, workers that boot, run, drain and stop."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise

from taskplatform.autoscale.policy import Memory, Rules, Sample, decide

Profile = Sequence[tuple[float, float]]
"""Phases: until when (seconds), and how many jobs arrive a second."""

AN_HOUR: Profile = (
    (600, 2.0),
    (900, 25.0),
    (1500, 4.0),
    (1520, 150.0),
    (2700, 1.0),
    (3000, 0.0),
    (3600, 12.0),
)
"""Quiet, a burst, less, a spike of twenty seconds, a trickle, nothing, and a step."""


@dataclass(slots=True)
class Worker:
    started: float
    ready_at: float
    busy: int = 0
    draining: bool = False
    stopped: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run cost and what it gave. Waits in seconds, in ascending order."""

    waits: list[float]
    worker_hours: float
    sizes: list[int]

    def percentile(self, share: float) -> float:
        return self.waits[min(int(share * len(self.waits)), len(self.waits) - 1)]

    @property
    def flips(self) -> int:
        """How often the fleet turned from growing to shrinking or back."""
        return flips(self.sizes)


@dataclass
class Simulation:
    """One run over one profile; the same seed gives the same run."""

    rules: Rules
    seed: int
    profile: Profile = AN_HOUR
    mean_service_seconds: float = 0.2
    slots: int = 4
    boot_seconds: float = 12.0
    poll_seconds: float = 5.0
    rate_window_seconds: float = 15.0
    _queue: deque[tuple[float, float]] = field(default_factory=deque)
    _workers: list[Worker] = field(default_factory=list)
    _waits: list[float] = field(default_factory=list)
    _arrivals: deque[float] = field(default_factory=deque)
    _served: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    _events: list[tuple[float, int, Callable[[float], None]]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=count)
    _memory: Memory = field(default_factory=Memory)
    _sizes: list[int] = field(default_factory=list)

    def run(self) -> Outcome:
        """Simulate until the profile is over."""
        draw = random.Random(self.seed)
        end = self.profile[-1][0]
        for moment in _arrivals(self.profile, draw):
            self._at(moment, lambda now: self._arrive(now, draw))
        for poll in range(int(end / self.poll_seconds)):
            self._at(poll * self.poll_seconds, self._poll)
        while self._events and self._events[0][0] <= end:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
            self._dispatch(now)
        return self._outcome(end)

    def _at(self, moment: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), happen))

    def _arrive(self, now: float, draw: random.Random) -> None:
        self._queue.append((now, self._service(draw)))
        self._arrivals.append(now)

    def _poll(self, now: float) -> None:
        decision, self._memory = decide(self.rules, self._sample(now), self._memory)
        self._resize(decision.desired, now)
        self._sizes.append(decision.desired)

    def _outcome(self, end: float) -> Outcome:
        lives = [(end if one.stopped is None else one.stopped) - one.started for one in self._workers]
        return Outcome(
            waits=sorted([*self._waits, *(end - arrived for arrived, _ in self._queue)]),
            worker_hours=sum(lives) / 3600,
            sizes=self._sizes,
        )

    def _service(self, draw: random.Random) -> float:
        # One job in ten takes five times as long.
        mean = self.mean_service_seconds / 1.4
        return draw.expovariate(1 / mean) * (5.0 if draw.random() < 0.1 else 1.0)

    def _alive(self) -> list[Worker]:
        return [one for one in self._workers if one.stopped is None and not one.draining]

    def _sample(self, now: float) -> Sample:
        while self._arrivals and self._arrivals[0] <= now - self.rate_window_seconds:
            self._arrivals.popleft()
        service = sum(self._served) / len(self._served) if self._served else 1.0
        alive = self._alive()
        return Sample(
            at=now,
            ready=len(self._queue),
            ready_work_seconds=len(self._queue) * service,
            running=sum(one.busy for one in self._workers if one.stopped is None),
            oldest_age_seconds=now - self._queue[0][0] if self._queue else 0.0,
            arrivals_per_second=len(self._arrivals) / self.rate_window_seconds,
            service_seconds=service,
            slots=self.slots,
            workers=len(alive),
            starting=sum(one.ready_at > now for one in alive),
        )

    def _resize(self, desired: int, now: float) -> None:
        alive = self._alive()
        for victim in sorted(alive, key=lambda one: one.busy)[: max(len(alive) - desired, 0)]:
            victim.draining = True
            self._settle(victim, now)
        for _ in range(desired - len(alive)):
            self._workers.append(Worker(now, now + self.boot_seconds))
            self._at(now + self.boot_seconds, lambda _: None)

    def _settle(self, worker: Worker, now: float) -> None:
        if worker.draining and worker.busy == 0:
            worker.stopped = now

    def _free(self, worker: Worker, now: float) -> None:
        worker.busy -= 1
        self._settle(worker, now)

    def _dispatch(self, now: float) -> None:
        ready = [one for one in self._alive() if one.ready_at <= now]
        while self._queue:
            free = min(ready, key=lambda one: one.busy, default=None)
            if free is None or free.busy >= self.slots:
                break
            arrived, service = self._queue.popleft()
            self._waits.append(now - arrived)
            self._served.append(service)
            free.busy += 1
            self._at(now + service, partial(self._free, free))


def flips(sizes: Sequence[int]) -> int:
    """Count how often a fleet turned from growing to shrinking or back."""
    turns = [later > sooner for sooner, later in pairwise(sizes) if later != sooner]
    return sum(sooner != later for sooner, later in pairwise(turns))


def oscillations(sizes: Sequence[int]) -> int:
    """Count how often a fleet went back and forth besides its one way up and its one way down."""
    return flips(sizes) // 2


def _arrivals(profile: Profile, draw: random.Random) -> list[float]:
    found, began = [], 0.0
    for until, rate in profile:
        now = began
        while rate and (now := now + draw.expovariate(rate)) < until:
            found.append(now)
        began = until
    return found
