"""Keeps the tables in shape: partitions come and go, what nobody needs any more is forgotten."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from taskplatform.errors import ArchiveUnavailable
from taskplatform.keeping import FOLD_ROWS, SLACK, Cutoff, Drop, Group, Policy, Sweep, Wait, cutoffs, first_look, judge
from taskplatform.store.postgres.asking import Ask, Asker
from taskplatform.store.postgres.partitions import PARTITIONED, Day, add_calls, days_of
from taskplatform.store.postgres.together import Row
from taskplatform.store.statements import Call, array, call
from taskplatform.store.upkeep import Archive, ArchiveBatch, Pruned

_log = logging.getLogger(__name__)

REST = "rest"
"""The name of what no daily partition holds: it is in the default partitions."""
# A survey reads all jobs of a day that are left.
_SURVEY_SECONDS = 900.0
# A round that has more to do is followed by another one; one that never ends looks stuck.
_ROUND = timedelta(minutes=5)
# A job and its result may have more than a megabyte.
_CHUNK_ROWS = 50
_LEFT_FOR_LATER = ("occupied", "busy", "late")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    policy: Policy
    limit: int
    now: datetime
    archive: Archive | None
    done: Counter[str]


class Upkeep(Asker):
    """The upkeep that UpkeepStore promises."""

    async def prune(self, policy: Policy, limit: int, archive: Archive | None = None) -> Pruned:
        """Add partitions, and forget old rows: at most `limit` of each kind, and of each day."""
        now = datetime.now(UTC)
        this = _Round(policy=policy, limit=limit, now=now, archive=archive, done=Counter())
        for made in add_calls(now.date()):
            ((answer,),) = (await self._write(made))[0]
            _note_left(answer, f"{made.name} {' '.join(map(str, made.parameters))}")
            this.done["partitions_added"] += answer == "added"
        await self._forget(this, "keys", call("forget_keys", str(limit)))
        more, trouble = await self._tend_all(this)
        await self._forget_letters(this)
        # Their jobs were forgotten by older code, or in other partitions.
        await self._forget(this, "attempts", call("forget_strays", str(now - policy.shortest), str(limit)))
        more = more or any(count >= limit for count in this.done.values())
        return Pruned(counts=this.done, more=more and not trouble, trouble=trouble)

    async def _tend_all(self, this: _Round) -> tuple[bool, str]:
        more = False
        for part in await self._due(this):
            if datetime.now(UTC) - this.now > _ROUND:
                return True, ""
            try:
                more = await self._tend(this, part) or more
            except ArchiveUnavailable as error:
                # Whatever else is to be archived would have to wait as long for the same answer.
                return False, str(error)
        return more, ""

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
        part = _part(day)
        await self._write(call("enter_part", part))
        async with self._transaction(within_seconds=_SURVEY_SECONDS) as ask:
            taken = await ask(call("take_part", part))
            if not taken:
                return False
            ((policy, swept_by, archived),) = taken
            if swept_by is not None and policy == this.policy.fingerprint:
                due = tuple(msgspec.json.decode(swept_by, type=list[Cutoff]))
                return await self._sweep(ask, this, day, due, archived)
            groups = _groups(await ask(_survey(day, this)))
            match _judged(groups, this, day):
                case Wait(until):
                    await self._leave(ask, this, day, until)
                    return False
                case Drop(due) if day is not None:
                    return await self._drop(ask, this, day, due)
                case Drop(due) | Sweep(due) if this.archive is None:
                    return await self._sweep(ask, this, day, due, archived)
                case Drop(due) | Sweep(due):
                    # In a round of its own: whoever comes after one that was cut short archives the same jobs again.
                    await self._leave(ask, this, day, this.now, due)
                    return True

    async def _leave(
        self, ask: Ask, this: _Round, day: Day | None, until: datetime, due: tuple[Cutoff, ...] = ()
    ) -> None:
        left = msgspec.json.encode(due).decode() if due else None
        await ask(call("leave_part", _part(day), this.policy.fingerprint, str(until), left))

    async def _drop(self, ask: Ask, this: _Round, day: Day, due: tuple[Cutoff, ...]) -> bool:
        ((answer,),) = await ask(call("drop_day", day.name, *day.bounds, *_columns(due), str(FOLD_ROWS)))
        if answer == "wanted":
            await self._leave(ask, this, day, this.now, due)
            return True
        _note_left(answer, day.name)
        if answer == "dropped":
            this.done["partitions_dropped"] += len(PARTITIONED)
        return bool(answer == "watched")

    async def _sweep(self, ask: Ask, this: _Round, day: Day | None, due: tuple[Cutoff, ...], archived: int) -> bool:
        past: list[Row] = await ask(_past(day, due, this.limit))
        taken = past
        if this.archive is not None and past:
            taken = await _archived(ask, this.archive.begin(_part(day), archived), sorted(past))
            if taken:
                await ask(call("count_archived", _part(day)))
        ids, series = array(row[0] for row in taken), array(row[1] for row in taken)
        ((jobs, attempts),) = await ask(call("forget_ended", ids, series))
        this.done["jobs"] += jobs
        this.done["attempts"] += attempts
        more = len(past) >= this.limit or len(taken) < len(past)
        await self._leave(ask, this, day, this.now + SLACK, due if more else ())
        return more


async def _archived(ask: Ask, batch: ArchiveBatch, past: Sequence[Row]) -> list[Row]:
    taken: list[Row] = []
    for begin in range(0, len(past), _CHUNK_ROWS):
        ids = array(row[0] for row in past[begin : begin + _CHUNK_ROWS])
        records = await ask(call("records_of", ids))
        await batch.add([record for _, _, record in records])
        taken += [(job_id, series) for job_id, series, _ in records]
        if batch.full:
            break
    if taken:
        await batch.close()
    return taken


def _judged(groups: Sequence[Group], this: _Round, day: Day | None) -> Wait | Sweep | Drop:
    if day is not None:
        return judge(groups, this.policy, this.now, archiving=this.archive is not None)
    due = cutoffs(groups, this.policy, this.now)
    return Sweep(due) if due else Wait(this.now)


def _part(day: Day | None) -> str:
    return REST if day is None else day.name


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
