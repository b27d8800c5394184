"""How many messages are worth having at hand where each may carry many jobs: pure arithmetic."""

from __future__ import annotations

from math import ceil

_LEVELS = (2, 4, 8, 32, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_535)
_LEAST_JOBS = 8
_SINKS_BY = 0.25


class Shares:
    """How many jobs a delivery brings; `most` is what the first may bring.

    A larger share counts at once, so that no hoard is made of what other workers could run; a smaller one by and by.
    """

    def __init__(self, most: int) -> None:
        self._share = float(most)
        self._jobs = 0
        self._deliveries = 0

    def received(self, jobs: int) -> None:
        """Note a delivery."""
        self._jobs += jobs
        self._deliveries += 1

    def prefetch(self, wanted: int, held: int, deliveries: int) -> int:
        """Give how many messages to have at hand for so many `wanted` jobs; asked a few times a second.

        `held` jobs of so many `deliveries` are here. Where those brought less than is usual, as slow jobs do that come
        singly among many quick ones in bundles, more are let in.
        """
        self._look()
        wanted = max(wanted, _LEAST_JOBS)
        room = deliveries + (wanted - held) / self._share if held < wanted else deliveries * wanted / held
        messages = ceil(max(wanted / self._share, room))
        return next((level for level in _LEVELS if level >= messages), _LEVELS[-1])

    def _look(self) -> None:
        if self._deliveries:
            mean = self._jobs / self._deliveries
            self._share = max(mean, self._share + _SINKS_BY * (mean - self._share))
            self._jobs = self._deliveries = 0
