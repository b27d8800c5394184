"""What a job costs Postgres by how full its pages are made, in databases that differ in nothing else, in turn."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from statistics import median

import psycopg

from benchmarks import bulk
from benchmarks.costs import Costs
from taskplatform.store.opening import opened
from taskplatform.store.postgres.migrate import migrate
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.store.postgres.work import PostgresWorkStore
from tests.fixtures.waiting import eventually
from tests.native.servers import Servers, private_servers

FACTORS = (50, 70, 85, 100)
_SHOWN = ("accept_ms_per_1000", "claim_finish_ms_per_1000")
# A session counts for others when it has ended.
_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_UPDATES = "SELECT n_tup_upd, n_tup_hot_upd, pg_relation_size(relid) FROM pg_stat_user_tables WHERE relname = 'jobs'"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="rounds of all fill factors")
    parser.add_argument("--jobs", type=int, default=8000, help="jobs a round")
    parser.add_argument("--waiting", type=int, default=1000, help="jobs that wait in the same table")
    wanted = parser.parse_args()
    with private_servers() as servers:
        measure(servers, FACTORS, wanted.rounds, wanted.jobs, wanted.waiting)
    return 0


def measure(servers: Servers, factors: Sequence[int], rounds: int, jobs: int, waiting: int) -> dict[int, float]:
    """Measure and print; gives the share of the updates that were heap-only, by fill factor in percent."""
    found: dict[int, dict[str, list[float]]] = {factor: defaultdict(list) for factor in factors}
    shares: dict[int, float] = {}
    with ExitStack() as cleanup:
        urls = {factor: cleanup.enter_context(_database(servers, factor, waiting)) for factor in factors}
        for number in range(rounds):
            for factor in factors if number % 2 else reversed(factors):
                for name, value in asyncio.run(_costs(urls[factor], jobs)).items():
                    found[factor][name].append(value)
        for factor, figures in found.items():
            updates, hot, size = _updates(urls[factor])
            shares[factor] = hot / updates
            shown = (f"{name} {median(all_):.1f} ({min(all_):.1f}-{max(all_):.1f})" for name, all_ in figures.items())
            print(f"{factor} %  {'  '.join(shown)}  hot {hot / updates:.1%}  {size / 2**20:.1f} MiB", flush=True)
    return shares


@contextmanager
def _database(servers: Servers, factor: int, waiting: int) -> Iterator[str]:
    home = servers.new_home()
    try:
        migrate(home.database_url)
        with psycopg.connect(home.database_url, autocommit=True) as connection:
            connection.execute(f"ALTER TABLE jobs SET (fillfactor = {factor})".encode())
            bulk.add_waiting(connection, range(waiting))
        bulk.settle(home.database_url)
        yield home.database_url
    finally:
        servers.drop_home(home)


async def _costs(url: str, jobs: int) -> dict[str, float]:
    async with opened(PostgresStore(url)) as store:
        with PostgresWorkStore(url) as work, closing(Costs(url=url, store=store, work=work, sample_ids=[])) as costs:
            return {name: value for name, value in (await costs.run(jobs)).items() if name in _SHOWN}


def _updates(url: str) -> tuple[int, int, int]:
    with psycopg.connect(url, autocommit=True) as connection:
        eventually(lambda: connection.execute(_OTHERS).fetchone() == (0,))
        ((updates, hot, size),) = connection.execute(_UPDATES).fetchall()
    return updates, hot, size


if __name__ == "__main__":
    sys.exit(main())
