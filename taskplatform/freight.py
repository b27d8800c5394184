"""How many jobs a message in a queue stands for, as far as a process can tell from what it sent there lately. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

HALF_LIFE_SECONDS = 30.0


class Freight:
    """The recent mean of jobs per message, queue by queue, on its way back to 1 while messages leave and none is sent.

    Bundles leave a queue faster than anybody counts them: who went on to take every message for one would call a queue
    full that holds a few single jobs. Who forgot them while they are still there would fill it beyond its limit.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loads: dict[str, _Load] = {}

    def note(self, queue: str, *, messages: int, jobs: int) -> None:
        """Note messages, at least one, with so many jobs together, that are safe in a queue."""
        load = self._loads.get(queue)
        if load is None:
            load = self._loads[queue] = _Load(self._clock())
        load.add(messages, jobs)

    def jobs_in(self, queue: str, messages: int) -> int:
        """Tell how many jobs the messages stand for that a queue was just seen to hold, rounded up."""
        load = self._loads.get(queue)
        if load is None:
            return messages
        load.see(messages, self._clock())
        return math.ceil(messages * load.mean)


class _Load:
    """What was sent to a queue: until it was last seen, and since.

    Its age is the time in which messages have left and none was sent: whenever the queue is seen to hold fewer than it
    held and was given, what has passed since it was last seen.
    """

    def __init__(self, at: float) -> None:
        self._messages = 0.0
        self._jobs = 0.0
        self._new_messages = 0
        self._new_jobs = 0
        self._depth = 0
        self._age = 0.0
        self._at = at

    def add(self, messages: int, jobs: int) -> None:
        self._new_messages += messages
        self._new_jobs += jobs

    def see(self, depth: int, now: float) -> None:
        if depth < self._depth + self._new_messages:
            self._age += now - self._at
        self._depth, self._at = depth, now
        if self._messages > depth:
            # So much has left for certain.
            self._jobs *= depth / self._messages
            self._messages = depth
        if self._new_messages:
            left = self._left
            self._messages = self._messages * left + self._new_messages
            self._jobs = self._jobs * left + self._new_jobs
            self._new_messages = self._new_jobs = 0
            self._age = 0.0

    @property
    def mean(self) -> float:
        return 1 + (self._jobs / self._messages - 1) * self._left if self._messages else 1.0

    @property
    def _left(self) -> float:
        return math.pow(0.5, self._age / HALF_LIFE_SECONDS)
