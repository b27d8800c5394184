"""Commands that tell what the autoscaler decided, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskplatform.cli.output import AsJson, fail, show, show_json, show_table
from taskplatform.cli.parameters import moment
from taskplatform.cli.session import with_store

if TYPE_CHECKING:
    from taskplatform.autoscale.contract import DecisionRecord

_MOST = 10_000


def ls(*, as_json: AsJson = False) -> None:
    """List the pools with the newest decision about each."""
    from taskplatform.settings import load

    newest = with_store(load(), lambda store: store.newest_decisions())
    if as_json:
        show_json([asdict(one) for one in newest])
        return
    headings = ("POOL", "WORKERS", "DESIRED", "REASON", "READY", "RUNNING", "OLDEST", "AT")
    show_table(
        headings,
        ((*(one.pool, one.workers, one.desired, one.reason), *_load(one.facts), one.at) for one in newest),
    )


def why(
    pool: Annotated[str, typer.Argument(help="The pool.", metavar="POOL")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="So many decisions at most.")] = 1,
    since: Annotated[
        datetime | None, typer.Option(help="Only later ones: a time, or 1h for an hour ago.", parser=moment)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a pool has as many workers as it has: the newest decisions, and what each followed from."""
    from taskplatform.settings import load

    found = with_store(load(), lambda store: store.decisions(pool, limit, since=since))
    if as_json:
        show_json([asdict(one) for one in found])
    elif not found:
        raise fail(f"nothing was decided about the pool {pool}")
    else:
        for record in found:
            show(_sentence(record))


def _load(facts: Mapping[str, Any]) -> tuple[int, int, str]:
    return facts["ready"], facts["running"], f"{facts['oldest_age_seconds']:.1f} s"


def _sentence(record: DecisionRecord) -> str:
    facts = record.facts
    holds = f" ({', '.join(facts['holds'])})" if facts["holds"] else ""
    return (
        f"{record.at:%Y-%m-%d %H:%M:%S} {record.pool}: {record.workers} → {record.desired} by {record.reason}{holds}: "
        f"{facts['arrivals_per_second']:.2f}/s × {facts['service_seconds']:.3f} s need {facts['keep_slots']:.2f} "
        f"slots, {facts['ready']} ready need {facts['drain_slots']:.2f} to drain, {facts['slots']} slots a worker: "
        f"{facts['needed']} needed, {facts['recommended']} within limits; oldest {facts['oldest_age_seconds']:.1f} s, "
        f"{facts['running']} running, {facts['starting']} starting, {facts['draining']} draining, "
        f"{facts.get('silent', 0)} silent, {facts['pinned']} pinned"
    )
