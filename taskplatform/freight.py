"""How many jobs a message in a queue stands for, as far as a process can tell from what it sent there lately. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

HALF_LIFE_SECONDS = 30.0


class Freight:
    """The recent mean of jobs per message, queue by queue, on its way back to 1 while nothing is sent.

    Bundles leave a queue faster than anybody counts them: who went on to take every message for one would call a queue
    full that holds a few single jobs.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: dict[str, _Sent] = {}

    def note(self, queue: str, *, messages: int, jobs: int) -> None:
        """Note messages, at least one, with so many jobs together, that are safe in a queue."""
        now = self._clock()
        sent = self._sent.get(queue)
        if sent is None:
            sent = self._sent[queue] = _Sent(now)
        sent.add(messages, jobs, now)

    def jobs_in(self, queue: str, messages: int) -> int:
        """Tell how many jobs so many messages in a queue stand for, rounded up."""
        sent = self._sent.get(queue)
        return messages if sent is None else math.ceil(messages * sent.mean(self._clock()))


class _Sent:
    def __init__(self, at: float) -> None:
        self._messages = 0.0
        self._jobs = 0.0
        self._at = at

    def add(self, messages: int, jobs: int, now: float) -> None:
        left = self._left(now)
        self._messages = self._messages * left + messages
        self._jobs = self._jobs * left + jobs
        self._at = now

    def mean(self, now: float) -> float:
        return 1 + (self._jobs / self._messages - 1) * self._left(now)

    def _left(self, now: float) -> float:
        return math.pow(0.5, (now - self._at) / HALF_LIFE_SECONDS)
