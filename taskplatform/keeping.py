"""How long ended work is kept, by tenant and task, and what that means for a day of it: values in, values out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

FOLD_ROWS = 1000
"""Up to so many wanted jobs of a day move into the default partition, so that the day's partition can be dropped."""
SLACK = timedelta(days=1)
"""How much longer than promised something may be kept: the jobs of a day end over a day, and then go together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How many days ended jobs are kept, those that are dead apart; None fits every tenant, or every task.

    A `task` that ends in `.*` fits every task whose name begins with what stands before the star.
    """

    retention_days: float
    dead_retention_days: float
    tenant: str | None = None
    task: str | None = None

    def fits(self, tenant: str | None, task: str | None) -> bool:
        """Tell whether it speaks of such jobs, or of such a dead letter, which may lack either."""
        if self.tenant is not None and self.tenant != tenant:
            return False
        if self.task is None or self.task == task:
            return True
        return task is not None and self.task.endswith(".*") and task.startswith(self.task[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules, of which the first that fits decides, and the days for what none of them fits."""

    default_days: float
    rules: tuple[Rule, ...] = ()

    def kept(self, tenant: str | None, task: str | None, *, dead: bool) -> timedelta:
        """Tell how long a job is kept after its end, or a dead letter after it was written down."""
        for rule in self.rules:
            if rule.fits(tenant, task):
                return timedelta(days=rule.dead_retention_days if dead else rule.retention_days)
        return timedelta(days=self.default_days)

    @property
    def shortest(self) -> timedelta:
        """The least time that anything is kept."""
        days = [day for rule in self.rules for day in (rule.retention_days, rule.dead_retention_days)]
        return timedelta(days=min([self.default_days, *days]))

    @property
    def fingerprint(self) -> str:
        """A short text that differs between policies, and says the same wherever and by whatever code it is made."""
        # 30 and 30.0 days are the same policy.
        rules = [
            (rule.tenant, rule.task, float(rule.retention_days), float(rule.dead_retention_days)) for rule in self.rules
        ]
        return hashlib.sha256(json.dumps([float(self.default_days), *rules]).encode()).hexdigest()[:16]

    def allows(self, due: Iterable[Cutoff], now: datetime) -> bool:
        """Tell whether it keeps nothing of what the cutoffs of another policy name."""
        return all(cut.before <= now - self.kept(cut.tenant, cut.task, dead=cut.dead) for cut in due)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Ended jobs of one tenant and task in one partition, dead ones apart; the times are those of their ends."""

    tenant: str | None
    task: str | None
    dead: bool
    count: int
    first_ended: datetime
    last_ended: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoff:
    """What of a group ended before that time has been kept long enough."""

    tenant: str | None
    task: str | None
    dead: bool
    before: datetime


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done until then."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the cutoffs name goes, in batches; the rest stays where it is."""

    cutoffs: tuple[Cutoff, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """The partition goes with all that the cutoffs name, and what they do not name moves out of it.

    When that turns out to be more than FOLD_ROWS jobs, the partition is swept instead.
    """

    cutoffs: tuple[Cutoff, ...]


def cutoffs(groups: Iterable[Group], policy: Policy, now: datetime) -> tuple[Cutoff, ...]:
    """Give the cutoff of each group of which something has been kept long enough."""
    found = ((each, now - _kept(each, policy)) for each in groups)
    return tuple(
        Cutoff(tenant=each.tenant, task=each.task, dead=each.dead, before=before)
        for each, before in found
        if each.first_ended < before
    )


def judge(groups: Sequence[Group], policy: Policy, now: datetime, *, archiving: bool) -> Wait | Sweep | Drop:
    """Decide about a partition of a day that is long over, from all that is in it.

    While there is an archive, nothing leaves but by a sweep, which archives first: a drop takes no job with it then.
    """
    due = cutoffs(groups, policy, now)
    if due:
        return Sweep(due) if archiving else Drop(due)
    if sum(each.count for each in groups) <= FOLD_ROWS:
        return Drop(())
    return Wait(min(each.first_ended + _kept(each, policy) for each in groups) + SLACK)


def first_look(day_begins: datetime, policy: Policy) -> datetime:
    """Tell when the partition of a day is worth a look: before that nothing in it has been kept long enough."""
    return day_begins + policy.shortest + SLACK


def _kept(group: Group, policy: Policy) -> timedelta:
    return policy.kept(group.tenant, group.task, dead=group.dead)
