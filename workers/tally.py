"""When a delivery of several jobs is over: pure bookkeeping for one channel."""

from __future__ import annotations

from workers.held import Settlement, Tag


class Tally:
    """How many jobs are not over yet of each delivery that brought several."""

    def __init__(self) -> None:
        self._left: dict[Tag, int] = {}
        self._refused: set[Tag] = set()

    def received(self, tag: Tag, jobs: int) -> None:
        """Note a delivery; one that Redis hands out twice is over when its jobs are, twice."""
        self._left[tag] = self._left.get(tag, 0) + jobs

    def settle(self, over: Settlement) -> Settlement:
        """Take in whose jobs are over, and give which deliveries are: each once, rejected if one of its jobs was."""
        left = self._left
        if not left:
            return over
        self._refused.update(tag for tag in over.reject if tag in left)
        whole = Settlement()
        for tags, single in ((over.ack, whole.ack), (over.reject, whole.reject)):
            for tag in tags:
                if tag not in left:
                    single.append(tag)
                elif left[tag] > 1:
                    left[tag] -= 1
                else:
                    del left[tag]
                    (whole.reject if tag in self._refused else whole.ack).append(tag)
                    self._refused.discard(tag)
        return whole
