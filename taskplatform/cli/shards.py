"""Commands about the shard map, directly in the databases: for whoever runs the platform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from taskplatform.cli.output import FAILED, UNAVAILABLE, AsJson, say, show_json, show_table
from taskplatform.errors import InvalidInput, SettingsError
from taskplatform.ids import SHARDS

if TYPE_CHECKING:
    from taskplatform.shards import ShardMap
    from taskplatform.store.postgres.placing import ClusterState


def ls(*, as_json: AsJson = False) -> None:
    """List the Postgres clusters: where each is, which map it knows, and which shards are at home in it.

    Ends with 3 when one of them is away, and with 1 when one is not what the settings say, or has not heard of the
    newest map: whoever was to tell it was cut off, and shards may be at home nowhere until it is told.
    """
    from taskplatform.settings import load
    from taskplatform.store.postgres.placing import look

    states = look(load().cluster_dsns())
    newest = max((state.known.map for state in states if state.known), key=lambda found: found.version, default=None)
    rows = [
        {
            "cluster": state.number,
            "address": state.address,
            "map": None if state.known is None else state.known.map.version,
            "shards": ranges(newest.shards_of(state.number) if newest else range(SHARDS if len(states) == 1 else 0)),
            "trouble": _trouble(state, newest),
        }
        for state in states
    ]
    if as_json:
        show_json(rows)
    else:
        show_table([name.upper() for name in rows[0]], (list(row.values()) for row in rows))
    if any(state.trouble for state in states):
        raise typer.Exit(UNAVAILABLE)
    if any(row["trouble"] for row in rows):
        raise typer.Exit(FAILED)


def move(
    shards: Annotated[str, typer.Argument(help="Shards as numbers and ranges: 0-63,200.")],
    *,
    to: Annotated[int, typer.Option(help="The number of the cluster that becomes their home.", min=0)],
) -> None:
    """Give empty shards another home, such as a new cluster; shards that hold jobs are refused."""
    from taskplatform.settings import load
    from taskplatform.store.postgres import placing

    dsns = load().cluster_dsns()
    if len(dsns) == 1:
        raise SettingsError("there is one cluster: database_cluster_urls names no other")
    if to >= len(dsns):
        raise InvalidInput(f"there is no cluster {to}: the settings know 0 to {len(dsns) - 1}")
    made = placing.move(dsns, parse(shards), to)
    say(f"Map {made.version} is in force: cluster {to} is the home of {ranges(made.shards_of(to))}")


def parse(text: str) -> list[int]:
    """Read numbers and ranges of shards. Raises InvalidInput."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not (first.isdecimal() and (last or first).isdecimal() and int(first) <= int(last or first) < SHARDS):
            raise InvalidInput(f"{part.strip()!r} is no shard nor a range of shards from 0 to {SHARDS - 1}")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def ranges(shards: Sequence[int]) -> str:
    """Write numbers as ranges."""
    runs: list[list[int]] = []
    for shard in shards:
        if runs and runs[-1][-1] == shard - 1:
            runs[-1][1:] = [shard]
        else:
            runs.append([shard])
    return ",".join("-".join(map(str, run)) for run in runs)


def _trouble(state: ClusterState, newest: ShardMap | None) -> str | None:
    known = state.known
    if known is not None and known.cluster != state.number:
        return f"it says that it is cluster {known.cluster}"
    if not state.trouble and newest is not None and (known is None or known.map.version < newest.version):
        return f"it has not heard of map {newest.version}: start `shards move` again, or `init`"
    return state.trouble or None
