"""What the owner wants of each pool: defaults from the settings, exceptions and schedules from a TOML file."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, time
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec

from taskplatform.autoscale.policy import Rules
from taskplatform.errors import SettingsError
from taskplatform.settings import MOST_WORKERS, Settings, read_toml

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LEAST_TARGET_SECONDS = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """At least `workers` on some days (0 is Monday) from `start` until before `end`, by the clock of `zone`.

    An `end` that is not after `start` lies on the next day.
    """

    workers: int
    days: frozenset[int] = frozenset(range(7))
    start: time = time.min
    end: time = time.max
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))

    def holds(self, at: float) -> bool:
        """Tell whether it holds at a moment (epoch seconds)."""
        local = datetime.fromtimestamp(at, UTC).astimezone(self.zone)
        now, today = local.time(), local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= now < self.end
        return (today in self.days and now >= self.start) or ((today - 1) % 7 in self.days and now < self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one pool is scaled.

    A worker is not stopped in its first `least_life_seconds`, and gets `grace_seconds` for what it runs when it is.
    When more than `failing_share` of the recent attempts failed the fleet is not changed.
    """

    rules: Rules = field(default_factory=Rules)
    floors: tuple[Floor, ...] = ()
    least_life_seconds: float = 30.0
    grace_seconds: float = 25.0
    failing_share: float = 0.8

    def floor_at(self, at: float) -> int:
        """Give how many workers the schedule asks for at a moment (epoch seconds)."""
        return max((floor.workers for floor in self.floors if floor.holds(at)), default=0)


def plans_of(settings: Settings) -> dict[str, Plan]:
    """Give the plan of each pool. Raises SettingsError that names what is wrong with the file."""
    default = Plan(
        rules=Rules(
            min_workers=settings.autoscale_min_workers,
            max_workers=settings.autoscale_max_workers,
            target_seconds=settings.autoscale_target_seconds,
            stabilisation_seconds=settings.autoscale_stabilisation_seconds,
            idle_seconds=settings.autoscale_idle_seconds,
        ),
        grace_seconds=settings.worker_drain_seconds,
    )
    if settings.autoscale_file is None:
        return {pool: _checked(pool, default) for pool in settings.pools}
    return read_plans(read_toml(settings.autoscale_file, "autoscale_file"), default, settings.pools)


def read_plans(tables: Mapping[str, Any], default: Plan, pools: Collection[str]) -> dict[str, Plan]:
    """Read `[pools.NAME]` tables; no grace is longer than the default. Raises SettingsError."""
    for name in tables:
        if name != "pools":
            raise SettingsError(f"autoscale_file: unknown table {name!r}; pools are in [pools.NAME]")
    try:
        wanted = msgspec.convert(tables.get("pools", {}), dict[str, dict[str, Any]])
    except msgspec.ValidationError as error:
        raise SettingsError(f"autoscale_file: pools are tables, [pools.NAME]: {error}") from None
    for pool in wanted:
        if pool not in pools:
            raise SettingsError(f"autoscale_file: {pool!r} is none of the pools {', '.join(pools)}")
    plans = {pool: _checked(pool, _read(pool, wanted.get(pool, {}), default)) for pool in pools}
    for pool, plan in plans.items():
        if plan.grace_seconds > default.grace_seconds:
            # A victim would be chosen for a time that it does not get.
            raise SettingsError(
                f"autoscaling of pool {pool}: grace_seconds is more than the {default.grace_seconds:g} s of"
                " worker_drain_seconds, after which a stopping worker waits no longer"
            )
    return plans


def _read(pool: str, table: Mapping[str, Any], default: Plan) -> Plan:
    own = dict(table)
    floors = tuple(_floor(pool, one) for one in _typed(pool, "floors", own.pop("floors", []), list[Any]))
    kinds = {one.name: _NUMBERS.get(str(one.type), float) for one in fields(Rules)}
    in_rules = {name: _typed(pool, name, own.pop(name), kinds[name]) for name in list(own) if name in kinds}
    kinds = {one.name: _NUMBERS.get(str(one.type), float) for one in fields(Plan) if one.name != "rules"}
    in_plan = {name: _typed(pool, name, own.pop(name), kinds[name]) for name in list(own) if name in kinds}
    if own:
        raise SettingsError(f"autoscale_file: unknown name {next(iter(own))!r} in [pools.{pool}]")
    return replace(default, rules=replace(default.rules, **in_rules), floors=floors or default.floors, **in_plan)


_NUMBERS: Mapping[str, type] = {"int": int}


def _typed(pool: str, name: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"autoscale_file: {name} in [pools.{pool}]: {error}") from None


def _floor(pool: str, table: Mapping[str, Any]) -> Floor:
    try:
        asked = msgspec.convert(table, _Floor)
        return Floor(
            workers=asked.workers,
            days=_days(asked.days),
            start=_time(asked.start),
            end=time.max if asked.end == "24:00" else _time(asked.end),
            zone=ZoneInfo(asked.zone),
        )
    except (ValueError, OSError, KeyError) as error:
        # Of msgspec, of time, of zoneinfo: each names the value.
        raise SettingsError(f"autoscale_file: a floor in [pools.{pool}]: {error}") from None


class _Floor(msgspec.Struct, forbid_unknown_fields=True):
    workers: Annotated[int, msgspec.Meta(ge=0, le=MOST_WORKERS)]
    days: str = "mon-sun"
    start: str = "00:00"
    end: str = "24:00"
    zone: str = "UTC"


def _time(text: str) -> time:
    found = time.fromisoformat(text)
    if found.tzinfo is not None:
        raise ValueError(f"{text!r} has an offset: a floor has a zone")
    return found


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if first not in _DAYS or (dash and last not in _DAYS):
            raise ValueError(f"{part!r} is no day: write mon-fri or sat,sun")
        begin, end = _DAYS.index(first), _DAYS.index(last if dash else first)
        found.update(day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1))
    return frozenset(found)


def _checked(pool: str, plan: Plan) -> Plan:
    rules = plan.rules
    times = (rules.stabilisation_seconds, rules.idle_seconds, plan.least_life_seconds, plan.grace_seconds)
    hours = rules.budget_worker_hours
    wrong: Sequence[tuple[bool, str]] = (
        (rules.min_workers < 0, "min_workers is negative"),
        (rules.max_workers < max(rules.min_workers, 1), "max_workers is less than 1 or than min_workers"),
        (rules.max_workers > MOST_WORKERS, f"max_workers is more than {MOST_WORKERS}"),
        (not _LEAST_TARGET_SECONDS <= rules.target_seconds < math.inf, "target_seconds is less than 1 ms or no number"),
        (not 0 < rules.utilisation <= 1, "utilisation is not above 0 and at most 1"),
        (rules.surge_workers < 1, "surge_workers is less than 1"),
        (not all(0 <= one < math.inf for one in times), "a time is negative or no number"),
        (hours is not None and not 0 <= hours < math.inf, "budget_worker_hours is negative or no number"),
        (rules.budget_workers < 0, "budget_workers is negative"),
        (not 0 < plan.failing_share <= 1, "failing_share is not above 0 and at most 1"),
    )
    for is_wrong, what in wrong:
        if is_wrong:
            raise SettingsError(f"autoscaling of pool {pool}: {what}")
    return plan
