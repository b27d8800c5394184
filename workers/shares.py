"""How many messages are worth having at hand where each may carry many jobs: pure arithmetic."""

from __future__ import annotations

from math import ceil, sqrt

_LEVELS = (2, 4, 8, 32, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_535)
_LEAST_JOBS = 8
_LEAST_ADDED = 0.5
_SINKS_BY = 0.25
_WEIGHT_OF_NEWEST = 0.25
_WORTH_CHANGING = 0.25


class Shares:
    """How many jobs a delivery brings; `most` is what the first, and so any, may bring.

    It is the mean of late, or that of the last few deliveries if they brought more: a spell of bundles counts from its
    first on, and one bundle among many single jobs is soon forgotten. It sinks by and by, never below the root of
    `most`: whoever has seen single jobs alone does not open a slot for each, which bundles would fill.
    """

    def __init__(self, most: int) -> None:
        self._least = sqrt(most)
        self._usual = float(most)
        self._newest = 1.0
        self._jobs = 0
        self._deliveries = 0

    def received(self, jobs: int) -> None:
        """Note a delivery."""
        self._jobs += jobs
        self._deliveries += 1
        self._newest += _WEIGHT_OF_NEWEST * (jobs - self._newest)

    def prefetch(self, wanted: int, held: int, deliveries: int) -> int:
        """Give how many messages to have at hand for so many `wanted` jobs; asked a few times a second.

        `held` jobs and so many unsettled `deliveries` are here. Where those hold less than is usual, as slow jobs do
        that come singly among many quick ones in bundles, more are let in, so many at a time that bundles do no harm.
        """
        share = self._look()
        wanted = max(wanted, _LEAST_JOBS)
        first = next((level for level in _LEVELS if level * share >= wanted), _LEVELS[-1])
        missing = wanted - held
        if missing > 0:
            room = deliveries + min(missing, max(missing, wanted * _LEAST_ADDED) / share)
        else:
            room = deliveries * wanted / held
        return min(max(first, ceil(room)), _LEVELS[-1])

    def _look(self) -> float:
        if self._deliveries:
            mean = self._jobs / self._deliveries
            self._usual = max(mean, self._usual + _SINKS_BY * (mean - self._usual))
            self._jobs = self._deliveries = 0
        return max(self._usual, self._newest, self._least)


def worth_changing(prefetch: int, wish: int, deliveries: int) -> bool:
    """Tell whether a consumer's prefetch should become what is wished: not for a little, unless it lets nothing in."""
    return wish > deliveries >= prefetch or abs(wish - prefetch) > _WORTH_CHANGING * prefetch
