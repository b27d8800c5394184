"""Which daily partitions hold which ids: pure dates and bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from taskplatform.ids import lowest_id_at
from taskplatform.store.statements import Call, call

PARTITIONED = {"finished_jobs": "id", "attempts": "job_id"}
"""The partitioned tables and the column whose time decides."""

DAYS_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Day:
    """The partitions of one day; each table has one whose name ends in `name`."""

    date: date

    @property
    def name(self) -> str:
        """What their names end in."""
        return f"{self.date:%Y%m%d}"

    @property
    def begins(self) -> datetime:
        """The time of the lowest id."""
        return datetime.combine(self.date, time(), tzinfo=UTC)

    @property
    def bounds(self) -> tuple[str, str]:
        """The lowest id, and the one above the highest."""
        return _lowest_id(self.begins), _lowest_id(self.begins + timedelta(days=1))


def add_calls(today: date) -> Iterator[Call]:
    """Give the calls that make the partitions of today and of the days ahead; each answers what it did."""
    for day in (Day(today + timedelta(days=ahead)) for ahead in range(DAYS_AHEAD + 1)):
        for parent, key in PARTITIONED.items():
            yield call("add_partition", parent, key, day.name, *day.bounds)


def days_of(partitions: Iterable[str]) -> list[Day]:
    """Give the days that have partitions, the oldest first; the default partitions are of none."""
    suffixes = {name.rpartition("_")[2] for name in partitions}
    found = (datetime.strptime(each, "%Y%m%d").replace(tzinfo=UTC) for each in suffixes if each.isdecimal())
    return [Day(each.date()) for each in sorted(found)]


def _lowest_id(at: datetime) -> str:
    return str(lowest_id_at(round(at.timestamp() * 1000)))
