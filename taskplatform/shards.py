"""Which Postgres cluster is the home of which logical shard: a map with a version, and what follows from ids alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Self
from uuid import UUID

from taskplatform.errors import StoreUnavailable
from taskplatform.ids import SHARDS, locate

ROW_BITS = 46
"""Rows of dead letters and outbox have the number of their cluster above these bits; all of them fit a double."""
MOST_CLUSTERS = 64


@dataclass(frozen=True, slots=True)
class ShardMap:
    """The clusters in which the logical shards 0 to 255 are at home; a later `version` replaces an earlier one."""

    version: int
    homes: tuple[int, ...]

    def home(self, job_id: UUID) -> int:
        """Tell the cluster of a job."""
        return self.homes[locate(job_id).shard]

    def shards_of(self, cluster: int) -> list[int]:
        """Give the shards that are at home in a cluster."""
        return [shard for shard, home in enumerate(self.homes) if home == cluster]


@dataclass(frozen=True, slots=True)
class KnownMap:
    """A shard map, and the number of the cluster that it was read from."""

    map: ShardMap
    cluster: int

    @classmethod
    def of_row(cls, version: int, cluster: int, homes: str) -> Self:
        """Make it of a row of `newest_map`."""
        return cls(ShardMap(version, tuple(map(int, homes[1:-1].split(",")))), cluster)


def own_map(row: Sequence[Any] | None, cluster: int) -> KnownMap:
    """Read what `newest_map` found where a cluster should be. Raises StoreUnavailable when it is another, or none."""
    if row is None:
        raise StoreUnavailable(
            f"what the settings call cluster {cluster} has no shard map: `taskplatform init` writes it"
        )
    known = KnownMap.of_row(*row)
    if known.cluster != cluster:
        raise StoreUnavailable(f"what the settings call cluster {cluster} is cluster {known.cluster} by its own map")
    return known


class Homes:
    """The newest map that this process knows, for `clusters` clusters; safe to be read from any thread."""

    def __init__(self, clusters: int) -> None:
        self.clusters = clusters
        self._map: ShardMap | None = None

    @property
    def version(self) -> int:
        """The version of the map, 0 while none is known."""
        return 0 if self._map is None else self._map.version

    def adopt(self, found: ShardMap | None) -> bool:
        """Take a map if it is newer than the known one, and tell whether it was.

        Raises StoreUnavailable for one of more clusters than there are here.
        """
        if found is None or found.version <= self.version:
            return False
        if max(found.homes) >= self.clusters:
            raise StoreUnavailable(
                f"the shard map names cluster {max(found.homes)}, and the settings know {self.clusters} clusters"
            )
        self._map = found
        return True

    def current(self) -> ShardMap:
        """Give the map. Raises StoreUnavailable while none is known."""
        if self._map is None:
            raise StoreUnavailable(
                "no shard map is known: `taskplatform init` writes the first, on clusters that are up"
            )
        return self._map

    def of(self, job_id: UUID) -> int:
        """Tell the cluster of a job. Raises StoreUnavailable while no map is known."""
        return self.current().home(job_id)

    def split(self, ids: Iterable[UUID]) -> dict[int, list[UUID]]:
        """Put the ids of each cluster together, in their order. Raises StoreUnavailable while no map is known."""
        known = self.current()
        parts: defaultdict[int, list[UUID]] = defaultdict(list)
        for job_id in ids:
            parts[known.home(job_id)].append(job_id)
        return dict(parts)

    def any_shard(self, random: Random, away: Collection[int] = ()) -> int:
        """Choose a shard for a job that may live anywhere, in a cluster that is not away if there is one."""
        known = self.current()
        shard = random.randrange(SHARDS)
        if known.homes[shard] in away:
            living = [each for each, home in enumerate(known.homes) if home not in away]
            return random.choice(living) if living else shard
        return shard


def spread(clusters: int) -> tuple[int, ...]:
    """Give every cluster as many shards as any other, but for one, each a run of neighbours."""
    return tuple(shard * clusters // SHARDS for shard in range(SHARDS))


def cluster_of_row(row_id: int) -> int:
    """Tell the cluster of a dead letter or outbox row from its number."""
    return row_id >> ROW_BITS


def first_row(cluster: int) -> int:
    """Give the least number that a row of a cluster has."""
    return (cluster << ROW_BITS) + 1


def continued(before: Sequence[int], shown: Iterable[int]) -> tuple[int, ...]:
    """Tell where each cluster's list of rows goes on: after what was shown of it last, on this page or one `before`."""
    last = {cluster_of_row(row): row for row in before}
    for row in shown:
        last[cluster_of_row(row)] = row
    return tuple(last[cluster] for cluster in sorted(last))
