"""The measurements of full tables and of a platform at rest work, at a tiny share of their size."""

import pytest

from benchmarks.atscale import costs_in, history
from benchmarks.filling import measure as measure_filling
from benchmarks.idle import measure as measure_idle
from benchmarks.reservoir import reservoir
from tests.native.servers import Servers


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.long
def test_a_full_table_drains_at_its_level_and_no_result_is_missing(servers: Servers) -> None:
    with reservoir(servers, "tiny", 300) as pool:
        drained = pool.drain(0.2, 0.5)
        costs = costs_in(pool.url, 200)
        pool.verify()

    assert drained["drained_per_s"] > 0
    assert costs["dispatch_ms_per_1000"] > 0


@pytest.mark.bench
def test_the_steps_are_measured_beside_a_history(servers: Servers) -> None:
    with history(servers, 1000, days=2) as url:
        costs = costs_in(url, 200)

    steps = ("accept", "claim_finish", "read", "rescue", "list_dead", "list_tag")
    assert {f"{step}_ms_per_1000" for step in steps} <= set(costs)
    assert min(costs.values()) > 0


@pytest.mark.bench
def test_fuller_pages_leave_less_room_for_heap_only_updates(servers: Servers) -> None:
    shares = measure_filling(servers, (50, 100), rounds=1, jobs=200, waiting=10)

    assert shares[50] > shares[100]


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.long
def test_every_part_of_a_platform_at_rest_is_measured() -> None:
    found = measure_idle(0.2, settle_seconds=0.0)

    assert {part.name for part in found.parts} == {
        *("up", "API", "worker", "dispatcher", "Flower", "Postgres", "Valkey", "guards"),
    }
    assert found.rss_mib > found.pss_mib > 0
