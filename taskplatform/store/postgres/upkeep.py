"""Keeps the tables in shape: partitions come and go, what nobody needs any more is forgotten."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from taskplatform.keeping import FOLD_ROWS, SLACK, Cutoff, Drop, Group, Policy, Sweep, Wait, cutoffs, first_look, judge
from taskplatform.store.postgres.asking import Ask, Asker
from taskplatform.store.postgres.partitions import PARTITIONED, Day, add_calls, days_of
from taskplatform.store.postgres.together import Row
from taskplatform.store.statements import Call, array, call
from taskplatform.store.upkeep import Pruned

_log = logging.getLogger(__name__)

REST = "rest"
"""The name of what no daily partition holds: it is in the default partitions."""
# A survey reads all jobs of a day that are left.
_SURVEY_SECONDS = 900.0
_LEFT_FOR_LATER = ("occupied", "busy", "late")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    policy: Policy
    limit: int
    now: datetime
    done: Counter[str]


class Upkeep(Asker):
    """The upkeep that UpkeepStore promises."""

    async def prune(self, policy: Policy, limit: int) -> Pruned:
        """Add partitions, and forget old rows: at most `limit` of each kind, and of each day."""
        now = datetime.now(UTC)
        this = _Round(policy=policy, limit=limit, now=now, done=Counter())
        for made in add_calls(now.date()):
            ((answer,),) = (await self._write(made))[0]
            _note_left(answer, f"{made.name} {' '.join(map(str, made.parameters))}")
            this.done["partitions_added"] += answer == "added"
        await self._forget(this, "keys", call("forget_keys", str(limit)))
        more = False
        for part in await self._due(this):
            more = await self._tend(this, part) or more
        await self._forget_letters(this)
        # Their jobs were forgotten by older code, or in other partitions.
        await self._forget(this, "attempts", call("forget_strays", str(now - policy.shortest), str(limit)))
        return Pruned(counts=this.done, more=more or any(count >= limit for count in this.done.values()))

    async def _forget(self, this: _Round, kind: str, forget: Call) -> None:
        (forgotten,) = await self._write(forget)
        this.done[kind] += len(forgotten)

    async def _forget_letters(self, this: _Round) -> None:
        groups = _groups(await self._read(call("survey_letters", str(this.now - this.policy.shortest))))
        due = cutoffs(groups, this.policy, this.now)
        if due:
            tenants, tasks, _, befores = _columns(due)
            await self._forget(this, "letters", call("forget_letters", tenants, tasks, befores, str(this.limit)))

    async def _due(self, this: _Round) -> list[Day | None]:
        known = {
            part: (policy, look_at, swept) for part, policy, look_at, swept in await self._read(call("list_parts"))
        }
        names = [row[0] for row in await self._read(call("list_partitions"))]
        due: list[Day | None] = [None]
        for day in days_of(names):
            policy, look_at, swept = known.get(day.name, ("", this.now, False))
            looked = policy == this.policy.fingerprint and look_at > this.now and not swept
            if first_look(day.begins, this.policy) <= this.now and not looked:
                due.append(day)
        return due

    async def _tend(self, this: _Round, day: Day | None) -> bool:
        part = REST if day is None else day.name
        await self._write(call("enter_part", part))
        async with self._transaction(within_seconds=_SURVEY_SECONDS) as ask:
            taken = await ask(call("take_part", part))
            if not taken:
                return False
            ((policy, _, swept_by),) = taken
            if swept_by is not None and policy == this.policy.fingerprint:
                due = tuple(msgspec.json.decode(swept_by, type=list[Cutoff]))
                return await self._sweep(ask, this, day, due)
            groups = _groups(await ask(_survey(day, this)))
            if day is None:
                due = cutoffs(groups, this.policy, this.now)
                return await self._sweep(ask, this, day, due) if due else False
            match judge(groups, this.policy, this.now, archiving=False):
                case Wait(until):
                    await ask(call("leave_part", part, this.policy.fingerprint, str(until), None))
                    return False
                case Drop(due):
                    return await self._drop(ask, this, day, due)
                case Sweep(due):
                    return await self._sweep(ask, this, day, due)

    async def _drop(self, ask: Ask, this: _Round, day: Day, due: tuple[Cutoff, ...]) -> bool:
        ((answer,),) = await ask(call("drop_day", day.name, *day.bounds, *_columns(due), str(FOLD_ROWS)))
        if answer == "wanted":
            return await self._sweep(ask, this, day, due)
        _note_left(answer, day.name)
        if answer == "dropped":
            this.done["partitions_dropped"] += len(PARTITIONED)
        return bool(answer == "watched")

    async def _sweep(self, ask: Ask, this: _Round, day: Day | None, due: tuple[Cutoff, ...]) -> bool:
        past = await ask(_past(day, due, this.limit))
        ids, series = array(row[0] for row in past), array(row[1] for row in past)
        ((jobs, attempts),) = await ask(call("forget_ended", ids, series))
        this.done["jobs"] += jobs
        this.done["attempts"] += attempts
        more = len(past) >= this.limit
        left = msgspec.json.encode(due).decode() if more else None
        part = REST if day is None else day.name
        await ask(call("leave_part", part, this.policy.fingerprint, str(this.now + SLACK), left))
        return more


def _groups(rows: Iterable[Row]) -> list[Group]:
    names = ("tenant", "task", "dead", "count", "first_ended", "last_ended")
    return [Group(**dict(zip(names, row, strict=True))) for row in rows]


def _columns(due: tuple[Cutoff, ...]) -> tuple[str, str, str, str]:
    return (
        array(cut.tenant for cut in due),
        array(cut.task for cut in due),
        array(cut.dead for cut in due),
        array(cut.before for cut in due),
    )


def _survey(day: Day | None, this: _Round) -> Call:
    if day is None:
        return call("survey_rest", str(this.now - this.policy.shortest))
    return call("survey_day", *day.bounds)


def _past(day: Day | None, due: tuple[Cutoff, ...], limit: int) -> Call:
    if day is None:
        return call("past_in_rest", *_columns(due), str(limit))
    return call("past_in_day", *_columns(due), str(limit), *day.bounds)


def _note_left(answer: str, what: str) -> None:
    if answer in _LEFT_FOR_LATER:
        # It is left for the next time; ids without a partition are kept by the default one.
        _log.warning("Partition left as it is: %s (%s)", answer, what)
