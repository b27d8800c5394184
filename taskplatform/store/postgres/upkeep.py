"""Keeps the tables in shape: partitions come and go, what nobody needs any more is forgotten."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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

NO_ARCHIVE_HERE = (
    "this database's jobs are archived, and TASKPLATFORM_ARCHIVE_URL is not set here:"
    " set it, or run taskplatform archive off"
)
REST = "rest"
"""The name of what no daily partition holds: it is in the default partitions."""
# A survey reads all jobs of a day that are left.
_SURVEY_SECONDS = 900.0
# A round that has more to do is followed by another one; one that never ends looks stuck.
_ROUND = timedelta(minutes=5)
# So much is asked for at once: a job and its result may have more than a megabyte, and most have a few hundred bytes.
_CHUNK_ROWS = 50
_CHUNK_BYTES = 4 * 1024 * 1024
# Much longer than the archive may take for a batch: a session that Postgres ends meanwhile forgets nothing.
_BATCH_TIME = "120s"
_LEFT_FOR_LATER = ("occupied", "busy", "late")


@dataclass(frozen=True, slots=True)
class _Place:
    ended: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    policy: Policy
    limit: int
    now: datetime
    archive: Archive | None
    done: Counter[str]

    @property
    def is_over(self) -> bool:
        return datetime.now(UTC) - self.now > _ROUND


@dataclass(frozen=True, slots=True)
class _Sweep:
    due: tuple[Cutoff, ...]
    policy: str
    archived: int
    behind: _Place | None = None


class Upkeep(Asker):
    """The upkeep that UpkeepStore promises."""

    async def prune(self, policy: Policy, limit: int, archive: Archive | None = None) -> Pruned:
        """Add partitions, and forget old rows: of each day, and in each transaction, at most `limit` of a kind."""
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
        return Pruned(counts=this.done, more=(more or this.is_over) and not trouble, trouble=trouble)

    async def _tend_all(self, this: _Round) -> tuple[bool, str]:
        more = False
        if this.archive is not None:
            await self._write(call("note_archive"))
        try:
            await _heed_others(self._read, this)
            for part in await self._due(this):
                if this.is_over:
                    break
                more = await self._tend(this, part) or more
        except ArchiveUnavailable as error:
            # Whatever else is to be archived would have to wait as long for the same answer.
            return False, str(error)
        return more, ""

    async def _forget(self, this: _Round, kind: str, forget: Call) -> None:
        more = True
        while more:
            (forgotten,) = await self._write(forget)
            this.done[kind] += len(forgotten)
            more = len(forgotten) >= this.limit and not this.is_over

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
            ((policy, cutoffs_left, archived, ended, last_id),) = taken
            if cutoffs_left is not None:
                due = tuple(msgspec.json.decode(cutoffs_left, type=list[Cutoff]))
                if policy == this.policy.fingerprint or this.policy.allows(due, this.now):
                    behind = None if last_id is None else _Place(str(ended), str(last_id))
                    return await self._sweep(ask, this, day, _Sweep(due, policy, archived, behind))
            groups = _groups(await ask(_survey(day, this)))
            match _judged(groups, this, day):
                case Wait(until):
                    await self._leave(ask, this.policy.fingerprint, day, until)
                    return False
                case Drop(due) if day is not None:
                    return await self._drop(ask, this, day, due)
                case Drop(due) | Sweep(due) if this.archive is None:
                    return await self._sweep(ask, this, day, _Sweep(due, this.policy.fingerprint, archived))
                case Drop(due) | Sweep(due):
                    # In a round of its own: whoever comes after one that was cut short archives the same jobs again.
                    sweep = _Sweep(due, this.policy.fingerprint, archived)
                    await self._leave(ask, sweep.policy, day, this.now, sweep)
                    return True

    async def _leave(self, ask: Ask, policy: str, day: Day | None, until: datetime, left: _Sweep | None = None) -> None:
        due = None if left is None else msgspec.json.encode(left.due).decode()
        behind = None if left is None else left.behind
        await ask(call("leave_part", _part(day), policy, str(until), due, *_columns_of(behind)))

    async def _drop(self, ask: Ask, this: _Round, day: Day, due: tuple[Cutoff, ...]) -> bool:
        await _heed_others(ask, this)
        ((answer,),) = await ask(call("drop_day", day.name, *day.bounds, *_columns(due), str(FOLD_ROWS)))
        if answer == "wanted":
            sweep = _Sweep(due, this.policy.fingerprint, 0)
            await self._leave(ask, sweep.policy, day, this.now, sweep)
            return True
        _note_left(answer, day.name)
        if answer == "dropped":
            this.done["partitions_dropped"] += len(PARTITIONED)
        return bool(answer == "watched")

    async def _sweep(self, ask: Ask, this: _Round, day: Day | None, sweep: _Sweep) -> bool:
        await _heed_others(ask, this)
        past: list[Row] = await ask(_past(day, sweep, this.limit))
        looked_at: Sequence[Row] = past
        taken = past
        if this.archive is not None and past:
            await ask(call("bear_with_the_archive", _BATCH_TIME))
            looked_at, taken = await _archived(ask, this.archive.begin(_part(day), sweep.archived), past)
            if taken:
                await ask(call("count_archived", _part(day)))
        ((jobs, attempts),) = await ask(call("forget_ended", *_endings(taken)))
        this.done["jobs"] += jobs
        this.done["attempts"] += attempts
        more = len(past) >= this.limit or len(looked_at) < len(past)
        left = replace(sweep, behind=_place_of(looked_at[-1])) if more else None
        await self._leave(ask, sweep.policy, day, this.now + SLACK, left)
        # Whose sweep it was is kept: to another policy the same partition is still to be looked into.
        return more or sweep.policy != this.policy.fingerprint


async def _heed_others(ask: Ask, this: _Round) -> None:
    # Others may have begun to archive while this round goes on.
    if this.archive is None and await ask(call("is_archiving")) == [(True,)]:
        raise ArchiveUnavailable(NO_ARCHIVE_HERE)


async def _archived(ask: Ask, batch: ArchiveBatch, past: Sequence[Row]) -> tuple[Sequence[Row], list[Row]]:
    """Fill a batch; gives the jobs up to which it came, and those of them that are in it."""
    count = 0
    taken: list[Row] = []
    for chunk in _chunks(past):
        records = await ask(call("records_of", *_endings(chunk)))
        await batch.add([record for _, _, record in records])
        count += len(chunk)
        taken += [(job_id, series) for job_id, series, _ in records]
        if batch.full:
            break
    if taken:
        await batch.close()
    return past[:count], taken


def _chunks(past: Sequence[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in past:
        if chunk and (len(chunk) == _CHUNK_ROWS or size + row[2] > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row[2]
    if chunk:
        yield chunk


def _endings(rows: Sequence[Row]) -> tuple[str, str]:
    return array(row[0] for row in rows), array(row[1] for row in rows)


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


def _past(day: Day | None, sweep: _Sweep, limit: int) -> Call:
    due, (ended, last_id) = _by_names(sweep.due), _columns_of(sweep.behind)
    if day is None:
        latest = max(cut.before for cut in sweep.due)
        return call("past_in_rest", due, str(limit), last_id, ended, str(latest))
    return call("past_in_day", due, str(limit), last_id, *day.bounds)


def _by_names(due: tuple[Cutoff, ...]) -> str:
    # A join would compare each job with each of them: hashes are out of the question where the order has to stay.
    befores: dict[str | None, dict[str | None, dict[str, datetime]]] = {}
    for cut in due:
        of_task = befores.setdefault(cut.tenant, {}).setdefault(cut.task, {})
        of_task["dead" if cut.dead else "ended"] = cut.before
    return msgspec.json.encode(befores).decode()


def _columns_of(place: _Place | None) -> tuple[str | None, str | None]:
    return (None, None) if place is None else (place.ended, place.id)


def _place_of(row: Row) -> _Place:
    job_id, _, _, ended = row
    return _Place(str(ended), str(job_id))


def _note_left(answer: str, what: str) -> None:
    if answer in _LEFT_FOR_LATER:
        # It is left for the next time; ids without a partition are kept by the default one.
        _log.warning("Partition left as it is: %s (%s)", answer, what)
