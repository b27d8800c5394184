"""`make bench-submit`: what each step of a submission costs, in processor time of the API's code and of the servers."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import uvloop

from benchmarks.tasks import noop
from taskplatform import strict_json, submission, wiring
from taskplatform.ids import Locator, new_job_id
from taskplatform.intake import envelope_of
from taskplatform.job import NewJob
from taskplatform.publish import Publisher, settled_rows
from taskplatform.settings import Settings, load
from taskplatform.store.contract import Accepted, Release
from taskplatform.store.opening import opened
from taskplatform.store.postgres.migrate import migrate
from taskplatform.store.postgres.store import PostgresStore
from taskplatform.submission import Caller, Checker
from taskplatform.telemetry import new_metrics
from tests.native.accounting import precise_seconds, tree_of
from tests.native.servers import Servers, private_servers

_SIZES = (1, 8, 100)
_ROUNDS = 7
_SECONDS_OF_A_STEP = 0.4
_WARM_UP_BATCHES = 5
_CHECKER = Checker(noop.spec)
_HOME = Locator(region=0, shard=0)

Step = Callable[[], Awaitable[int]]


@dataclass(slots=True, kw_only=True)
class Route:
    """The steps of a submission without HTTP; each takes `size` jobs as one batch, and gives how many it took."""

    settings: Settings
    store: PostgresStore
    publisher: Publisher
    size: int
    _texts: list[bytes] = field(init=False)
    _jobs: list[NewJob] = field(init=False, default_factory=list)
    _releases: list[Release] = field(init=False, default_factory=list)
    _settled: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._texts = [msgspec.json.encode({"task": noop.name, "args": [number]}) for number in range(self.size)]

    @property
    def steps(self) -> dict[str, Step]:
        """The steps by name, in their order."""
        return {"validate": self._validate, "insert": self._insert, "publish": self._publish}

    async def _validate(self) -> int:
        caller = Caller(tenant="default", pools=self.settings.pools)
        now = datetime.now(UTC)
        jobs = []
        for text in self._texts:
            strict_json.utf8(text)
            request = submission.read_item(text)
            jobs.append(submission.new_job(request, _CHECKER, caller, now=now, job_id=new_job_id(_HOME), key=None))
        self._jobs = jobs
        return len(jobs)

    async def _insert(self) -> int:
        # Every batch is stored under ids of its own.
        jobs = [msgspec.structs.replace(job, id=new_job_id(_HOME)) for job in self._jobs]
        settled, self._settled = self._settled, []
        verdicts = await self.store.accept(jobs, settled=settled)
        self._releases = [
            Release(envelope=envelope_of(job), outbox_id=verdict.outbox_id)
            for job, verdict in zip(jobs, verdicts, strict=True)
            if isinstance(verdict, Accepted)
        ]
        return len(jobs)

    async def _publish(self) -> int:
        confirmed: set[UUID] = await self.publisher(self._releases)
        self._settled += settled_rows(self._releases, confirmed)
        return len(confirmed)


@dataclass(slots=True, kw_only=True)
class Meter:
    """Microseconds of processor time per job: of this process, of Postgres' sessions, of RabbitMQ."""

    servers: Servers

    async def measure(self, step: Step) -> tuple[float, float, float]:
        """Run a step for a while."""
        before = self._read()
        until, jobs = time.monotonic() + _SECONDS_OF_A_STEP, 0
        while time.monotonic() < until:
            jobs += await step()
        own, postgres, rabbitmq = (
            (after - earlier) / jobs * 1e6 for after, earlier in zip(self._read(), before, strict=True)
        )
        return own, postgres, rabbitmq

    def _read(self) -> tuple[float, float, float]:
        trees = [tree_of(server.process.pid) for server in (self.servers.postgres, self.servers.rabbitmq)]
        postgres, rabbitmq = map(_seconds, trees)
        return time.process_time(), postgres, rabbitmq


def _seconds(pids: Sequence[int]) -> float:
    # Of every thread, since RabbitMQ works in several.
    threads = [int(thread.name) for pid in pids for thread in Path(f"/proc/{pid}/task").glob("*")]
    return precise_seconds(threads)


async def _measure(servers: Servers, rounds: int) -> dict[tuple[int, str], list[tuple[float, float, float]]]:
    home = servers.new_home()
    settings = load(
        {},
        database_url=home.database_url,
        broker_url=home.broker_url,
        signing_keys=secrets.token_hex(32),
        log_level="WARNING",
    )
    await asyncio.to_thread(migrate, home.database_url)
    broker = wiring.new_broker(settings)
    publisher = Publisher(broker, settings.signing_secrets()[0], new_metrics())
    found: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    async with opened(PostgresStore(home.database_url)) as store:
        await broker.start()
        await broker.declare(settings.pools)
        routes = [Route(settings=settings, store=store, publisher=publisher, size=size) for size in _SIZES]
        for route in routes:
            for step in [*route.steps.values()] * _WARM_UP_BATCHES:
                await step()
        for _ in range(rounds):
            for route in routes:
                for name, step in route.steps.items():
                    found.setdefault((route.size, name), []).append(await Meter(servers=servers).measure(step))
        await broker.stop()
    return found


def main() -> int:
    """Measure the steps in batches of several sizes, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.submitting", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="how often each step is measured")
    rounds: int = parser.parse_args().rounds
    with private_servers() as servers:
        found = uvloop.run(_measure(servers, rounds))
    print("| jobs a batch | step | API code, µs a job | Postgres | RabbitMQ |\n|--:|---|--:|--:|--:|")
    for (size, name), samples in found.items():
        own, postgres, rabbitmq = (statistics.median(column) for column in zip(*samples, strict=True))
        print(f"| {size} | {name} | {own:.1f} | {postgres:.1f} | {rabbitmq:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
