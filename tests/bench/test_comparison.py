"""The comparison itself works: every side runs what it is given, and what it uses is seen."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.contestant import PEERS_PYTHON, up
from benchmarks.ground import Ground, with_redis
from benchmarks.measure import Scale, measure, play, verify
from benchmarks.orders import Work
from benchmarks.roster import ENTRIES, PLATFORM, STOCK, Entry
from benchmarks.smoke import Figures
from tests.native.servers import Servers


@pytest.fixture
def ground(servers: Servers) -> Iterator[Ground]:
    """The servers of this test run, and a Redis."""
    with with_redis(servers) as ground:
        yield ground


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.parametrize("entry", [PLATFORM, STOCK], ids=lambda entry: entry.key)
def test_both_sides_of_the_smoke_run_a_round_and_are_measured(ground: Ground, entry: Entry) -> None:
    with up(ground, entry, python=Path(sys.executable)) as side:
        batch = play(side, Work.NOOP, 300)
        run_twice = verify(side)

    assert run_twice == 0
    assert batch.jobs_per_second > 0
    assert min(batch.client_cpu, batch.own_cpu, batch.server_cpu) > 0


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not PEERS_PYTHON.exists(), reason="the peers are not installed: make bench-peers")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.key)
def test_a_side_runs_a_whole_round_and_nothing_is_lost(ground: Ground, entry: Entry) -> None:
    tiny = Scale(share=0.01, singles=20, bulk=100, idle_seconds=0.1)

    with up(ground, entry) as side:
        figures = measure(side, tiny)

    assert figures["jobs_run_twice"] == 0
    assert min(figures["noop_per_s"], figures["nap_per_s"], figures["submit_one_per_s"]) > 0


@pytest.mark.parametrize(
    ("ratio", "accepted", "enough"), [(8.0, 5000.0, True), (7.9, 9000.0, False), (20.0, 4999.0, False)]
)
def test_both_promises_must_hold(ratio: float, accepted: float, *, enough: bool) -> None:
    figures = Figures(
        noop_ratio=ratio,
        noop_jobs_per_s=ratio * 100,
        stock_jobs_per_s=100.0,
        batch_accept_per_s=accepted,
        cpu_s_per_1000=0.5,
        stock_cpu_s_per_1000=6.0,
    )

    assert figures.enough is enough
