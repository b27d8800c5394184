"""Which daily partitions hold which ids: pure dates and bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

from taskplatform.ids import lowest_id_at
from taskplatform.store.statements import Call, call

PARTITIONED = {"finished_jobs": "id", "attempts": "job_id"}
"""The partitioned tables and the column whose time decides."""

DAYS_AHEAD = 3


def add_calls(today: date) -> Iterator[Call]:
    """Give the calls that make the partitions of today and of the days ahead; each answers what it did."""
    for day in (today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)):
        lower, upper = _lowest_id(day), _lowest_id(day + timedelta(days=1))
        for parent, key in PARTITIONED.items():
            yield call("add_partition", parent, key, f"{day:%Y%m%d}", lower, upper)


def past_retention(partitions: Iterable[str], oldest: datetime) -> list[str]:
    """Give those partitions, by name, all of whose ids are older than `oldest`; the default partitions never are."""
    return [name for name in partitions if (day := _day_of(name)) is not None and _midnight(day, 1) <= oldest]


def _lowest_id(day: date) -> str:
    return str(lowest_id_at(round(_midnight(day).timestamp() * 1000)))


def _midnight(day: date, later: int = 0) -> datetime:
    return datetime.combine(day + timedelta(days=later), time(), tzinfo=UTC)


def _day_of(partition: str) -> date | None:
    suffix = partition.rpartition("_")[2]
    return datetime.strptime(suffix, "%Y%m%d").replace(tzinfo=UTC).date() if suffix.isdecimal() else None
