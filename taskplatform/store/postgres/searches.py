"""Puts searches together, with the conditions that are wanted; loaded by the first search of a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncCursor
from sqlalchemy import URL, Column, ColumnElement, Select, Table, cast, literal_column, null, or_, select, union_all

from taskplatform.job import LIVE, TERMINAL, State
from taskplatform.store.contract import JobFilter, LetterFilter
from taskplatform.store.postgres import rows
from taskplatform.store.postgres.pool import Link
from taskplatform.store.postgres.reading import SEARCH_SECONDS, Question
from taskplatform.store.schema import dead_letters, finished_jobs, jobs

_DIALECT = URL.create("postgresql+psycopg").get_dialect()()

# What every job in such a state has: the small indexes of these columns find them behind any number of others.
_MARKS = {
    State.QUEUED: jobs.c.queued_at,
    State.RUNNING: jobs.c.queued_at,
    State.SCHEDULED: jobs.c.due_at,
    State.RETRYING: jobs.c.due_at,
    State.BLOCKED: jobs.c.blocked_on,
}

# A search is planned for its own values and may read a table from end to end.
_AS_PLANNED = (
    "SELECT set_config('plan_cache_mode', 'auto', true), set_config('enable_seqscan', 'on', true),"
    " set_config('enable_hashjoin', 'on', true), set_config('enable_mergejoin', 'on', true),"
    f" set_config('statement_timeout', '{SEARCH_SECONDS * 1000:.0f}', true)"
)


def for_jobs(wanted: JobFilter, limit: int) -> Question:
    """Ask for live and ended jobs in one snapshot, newest first."""
    parts = []
    if not wanted.states or wanted.states & LIVE:
        parts.append(_jobs_in(jobs, wanted, limit).where(*_marked(wanted.states)))
    if not wanted.states or wanted.states & TERMINAL:
        parts.append(_jobs_in(finished_jobs, wanted, limit))
    return _search(parts, limit)


def for_letters(wanted: LetterFilter, limit: int) -> Question:
    """Ask for dead letters, newest first."""
    return _search([_letters(wanted, limit)], limit)


def _search(parts: Sequence[Select[Any]], limit: int) -> Question:
    union = union_all(*(part.subquery().select() for part in parts))
    query = union.order_by(literal_column("id").desc()).limit(limit)
    compiled = query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})

    async def ask(link: Link) -> list[rows.Row]:
        async with AsyncCursor(link) as cursor:
            async with link.transaction():
                await cursor.execute(_AS_PLANNED, prepare=False)
                await cursor.execute(str(compiled), compiled.params, prepare=False)
            return await cursor.fetchall()

    return ask


def _jobs_in(table: Table, wanted: JobFilter, limit: int) -> Select[Any]:
    column = table.c
    conditions = [column.tenant == wanted.tenant]
    if wanted.states:
        conditions.append(column.state.in_([state.value for state in sorted(wanted.states)]))
    for name, value in (("task", wanted.task), ("pool", wanted.pool)):
        if value is not None:
            conditions.append(column[name] == value)
    if wanted.tag is not None:
        conditions.append(column.tags.contains([wanted.tag]))
    if wanted.created_after is not None:
        conditions.append(column.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(column.created_at < wanted.created_before)
    if wanted.before is not None:
        conditions.append(column.id < wanted.before)
    shown = [_shown(table, name) for name in rows.JOB_COLUMNS]
    return select(*shown).where(*conditions).order_by(column.id.desc()).limit(limit)


def _marked(states: frozenset[State]) -> list[ColumnElement[bool]]:
    marks = {_MARKS[state] for state in states & LIVE}
    return [or_(*(mark.is_not(None) for mark in marks))] if marks else []


def _shown(table: Table, name: str) -> ColumnElement[Any]:
    if name in table.c:
        return table.c[name]
    other: Column[Any] = (finished_jobs if table is jobs else jobs).c[name]
    return cast(null(), other.type).label(name)


def _letters(wanted: LetterFilter, limit: int) -> Select[Any]:
    column = dead_letters.c
    conditions: list[ColumnElement[bool]] = []
    for name, value in (("tenant", wanted.tenant), ("reason", wanted.reason), ("task", wanted.task)):
        if value is not None:
            conditions.append(column[name] == value)
    if wanted.replayed is not None:
        conditions.append(column.replayed_at.is_not(None) if wanted.replayed else column.replayed_at.is_(None))
    if wanted.before:
        conditions.append(column.id < min(wanted.before))
    shown = [column[name] for name in rows.LETTER_COLUMNS if name != "raw"]
    return select(*shown).where(*conditions).order_by(column.id.desc()).limit(limit)
