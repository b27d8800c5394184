"""How long jobs of each task take, and what follows for handing them out: pure arithmetic."""

from __future__ import annotations

CHUNK_SECONDS = 0.01
"""Work that is handed to a child in one piece, so that the hand-over costs little beside it."""

CHUNK_JOBS = 64
SLOW_SECONDS = CHUNK_SECONDS / 2
"""From here on a job goes to its child alone."""

_WEIGHT = 0.2
_WEIGHT_OF_SLOWER = 0.5


class Pace:
    """A moving average of each task's run time; slower runs weigh more, so a task that turns slow is seen at once."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self.typical_seconds: float | None = None

    def observe(self, task: str, seconds: float) -> None:
        """Take in how long one job of the task ran."""
        self._seconds[task] = _moved(self._seconds.get(task), seconds)
        self.typical_seconds = _moved(self.typical_seconds, seconds)

    def seconds(self, task: str) -> float | None:
        """Give the expected run time; None for a task that never ran here."""
        return self._seconds.get(task)

    def quick(self, task: str) -> bool:
        """Tell whether jobs of the task may share a chunk."""
        seconds = self._seconds.get(task)
        return seconds is not None and seconds < SLOW_SECONDS


def _moved(known: float | None, seconds: float) -> float:
    if known is None:
        return seconds
    return known + (_WEIGHT_OF_SLOWER if seconds > known else _WEIGHT) * (seconds - known)
