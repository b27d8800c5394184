"""How much a worker has claimed, and what it may claim next: pure arithmetic over what waits for each cluster."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from workers.held import ClusterPart, Held, Limits
from workers.pace import Pace


class Room:
    """The jobs that are claimed, or being claimed, and have no outcome yet; `exclusive` while one is a suspect."""

    def __init__(self, limits: Limits, pace: Pace) -> None:
        self.taken: dict[UUID, Held] = {}
        self.exclusive = False
        self._limits = limits
        self._pace = pace
        self._expected = 0.0

    def take(self, held: Held) -> None:
        """Count a job in."""
        self.taken[held.envelope.id] = held
        self._expected += held.expected_seconds

    def let_go(self, held: Held) -> None:
        """Count a job out; may be called twice."""
        if self.taken.pop(held.envelope.id, None) is None:
            return
        if self.taken:
            self._expected -= held.expected_seconds
        else:
            self._expected = 0.0
            self.exclusive = False

    def choose(self, part: ClusterPart, parts: Sequence[ClusterPart]) -> list[Held]:
        """Take what may be claimed in a cluster now: in the order of priority, ahead by time, a suspect alone."""
        chosen: list[Held] = []
        if self.exclusive or self._gives_way(part, parts):
            return chosen
        limits = self._limits
        count, seconds = len(self.taken), self._expected
        most_seconds = limits.window_seconds * limits.processes
        for queue in part.waiting.values():
            while queue:
                held = queue[0]
                if held.envelope.suspect:
                    if count == 0:
                        self.exclusive = True
                        chosen.append(queue.popleft())
                    return chosen
                expected = self._pace.seconds(held.envelope.task)
                if expected is None:
                    expected = limits.window_seconds
                ahead = count < limits.window_jobs and seconds + expected <= most_seconds
                if count >= limits.processes and not ahead:
                    return chosen
                held.expected_seconds = expected
                chosen.append(queue.popleft())
                count += 1
                seconds += expected
        return chosen

    def _gives_way(self, part: ClusterPart, parts: Sequence[ClusterPart]) -> bool:
        # What is claimed in one cluster would keep the suspect of another waiting for ever.
        if part.suspect_is_next and not self.taken:
            return False
        return any(other.suspect_is_next and not other.away for other in parts if other is not part)
