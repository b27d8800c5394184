"""Whom a new map of the shards holds up, and for how long."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import psycopg
import pytest

from taskplatform.errors import StoreUnavailable
from taskplatform.store.postgres import placing
from tests.fixtures.shards import Sharded
from tests.fixtures.waiting import eventually

_WAITS_FOR_ATTEMPTS = "SELECT 1 FROM pg_locks WHERE relation = 'attempts'::regclass AND NOT granted"
_HELD_UP = "SELECT 1 FROM pg_locks WHERE relation = 'jobs'::regclass AND mode = 'ShareRowExclusiveLock'"


def test_nobody_is_held_up_in_one_cluster_while_another_is_looked_through(sharded: Sharded, database: str) -> None:
    dsns = [*sharded.dsns, database]
    placing.ensure_map(dsns)

    with ThreadPoolExecutor(1) as thread, psycopg.connect(dsns[1]) as slow:
        # What it is to be found empty by takes its time.
        slow.execute("LOCK TABLE attempts")
        moving = thread.submit(placing.move, dsns, [7, 200], 2)
        eventually(lambda: sharded.rows(1, _WAITS_FOR_ATTEMPTS), within_seconds=30)
        held_up = sharded.rows(0, _HELD_UP)
        slow.rollback()
        made = moving.result(60)

    assert held_up == []
    assert (made.homes[7], made.homes[200]) == (2, 2)


def test_all_clusters_together_are_held_up_no_longer_than_one(
    sharded: Sharded, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsns = [*sharded.dsns, database]
    placing.ensure_map(dsns)
    # One cluster is asked seven things under its lock, both fourteen: by this clock there is time for nine.
    looks = count()
    monkeypatch.setattr(placing, "LOCK_SECONDS", 900)
    monkeypatch.setattr(placing, "monotonic", lambda: next(looks) * 100.0)

    with pytest.raises(StoreUnavailable, match="not all found empty"):
        placing.move(dsns, [7, 200], to=2)

    assert [state.known.map.version for state in placing.look(dsns) if state.known] == [1, 1, 1]
