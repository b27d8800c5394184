"""What the operator wants kept for how long: a default from the settings, exceptions from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from taskplatform.errors import SettingsError
from taskplatform.keeping import Policy, Rule
from taskplatform.settings import Settings, read_toml

_SECONDS_A_DAY = 86_400.0
_Days = Annotated[float, msgspec.Meta(gt=0, le=36_500)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]


def policy_of(settings: Settings) -> Policy:
    """Give the retention policy. Raises SettingsError that names what is wrong with the file, or with the days."""
    file = settings.retention_file
    rules = () if file is None else read_rules(read_toml(file, "retention_file"))
    policy = Policy(default_days=settings.retention_days, rules=rules)
    if policy.shortest.total_seconds() < settings.key_lifetime_seconds:
        raise SettingsError(
            f"retention of {policy.shortest.total_seconds() / _SECONDS_A_DAY:g} days is less than key_lifetime_seconds:"
            " an idempotency key would name a job that is gone"
        )
    return policy


def read_rules(tables: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Read `[[rules]]` tables. Raises SettingsError."""
    try:
        found = msgspec.convert(tables, _File)
    except msgspec.ValidationError as error:
        raise SettingsError(f"retention_file: {error}") from None
    for rule in found.rules:
        if rule.task is not None and "*" in rule.task.removesuffix(".*"):
            raise SettingsError(
                f"retention_file: task {rule.task!r}: a star stands at the end alone, as in 'reports.*'"
            )
    return tuple(
        Rule(
            tenant=rule.tenant,
            task=rule.task,
            retention_days=rule.retention_days,
            dead_retention_days=rule.retention_days if rule.dead_retention_days is None else rule.dead_retention_days,
        )
        for rule in found.rules
    )


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    retention_days: _Days
    dead_retention_days: _Days | None = None
    tenant: _Name | None = None
    task: _Name | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    rules: list[_Rule] = []
