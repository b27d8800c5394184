"""One side of the comparison while it is up: its worker, its agent, its ledger and its meters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.ground import Ground
from benchmarks.ledger import Ledger
from benchmarks.places import Places, Results
from benchmarks.remote import Remote
from benchmarks.roster import Entry
from taskplatform.servers import Command, Process
from taskplatform.servers.configuration import CLEAN_ENVIRONMENT
from tests.native.accounting import Usage, proportional_bytes, usage_of
from tests.native.part import Part
from tests.native.stack import Stack

ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
_RESULTS_DB = 0
_STOP_SECONDS = 10.0


@dataclass(slots=True, kw_only=True)
class Contestant:
    """A side that runs jobs. Each of its jobs has a number of its own, counted from 0."""

    entry: Entry
    agent: Remote
    new_agent: Callable[[], Remote]
    ledger: Ledger
    processes: Sequence[Process]
    workers: Sequence[Process]
    server_usage: Callable[[], Usage]
    stop_worker: Callable[[], None]
    stack: Stack | None = None
    submitted: int = field(default=0, init=False)

    def usage(self) -> Usage:
        """Give what its own processes have used, the workers among them."""
        return usage_of(_pids(self.processes))

    def worker_usage(self) -> Usage:
        """Give what its workers have used."""
        return usage_of(_pids(self.workers))

    def worker_proportional_bytes(self) -> int:
        """Give the memory of its workers with each shared page counted once."""
        return proportional_bytes(_pids(self.workers))

    def complaint(self) -> str | None:
        """Give the last words of a process of its own that has died."""
        return next((process.log_tail() for process in self.processes if not process.alive), None)

    def next_numbers(self, count: int) -> range:
        """Give numbers that no job has had yet."""
        numbers = range(self.submitted, self.submitted + count)
        self.submitted = numbers.stop
        return numbers


@contextmanager
def up(ground: Ground, entry: Entry, python: Path = PEERS_PYTHON) -> Iterator[Contestant]:
    """Start a side with a virtual host, a database and a Redis of its own, and remove all of it.

    `python` is the interpreter of a peer; the platform runs in ours.
    """
    ground.redis.flush(_RESULTS_DB)
    with ExitStack() as cleanup:
        yield _platform(ground, entry, cleanup) if entry.settings is not None else _peer(ground, entry, python, cleanup)


def _platform(ground: Ground, entry: Entry, cleanup: ExitStack) -> Contestant:
    ledger = _new_ledger(ground, entry)
    places = Places(broker_url="", database_url="", redis_url="", ledger=str(ledger.path), results=Results.POSTGRES)
    stack = cleanup.enter_context(Stack(ground.servers, entry.settings or {}, environment=places.environment()))
    workers = [stack.worker, *_more_workers(stack, entry.workers - 1, cleanup)]
    for_agent = Places(
        broker_url=stack.home.broker_url,
        database_url=stack.home.database_url,
        redis_url=ground.redis.url(_RESULTS_DB),
        ledger=str(ledger.path),
        results=Results.POSTGRES,
        api_port=stack.settings.api_port,
        api_key=stack.key,
    )
    return Contestant(
        entry=entry,
        agent=_agent(ground, entry, sys.executable, for_agent, cleanup),
        new_agent=partial(_agent, ground, entry, sys.executable, for_agent, cleanup),
        ledger=ledger,
        processes=[part.process for part in (*stack.parts, *workers[1:])],
        workers=[worker.process for worker in workers],
        server_usage=ground.usage,
        stop_worker=lambda: _stop_all(workers),
        stack=stack,
    )


def _more_workers(stack: Stack, count: int, cleanup: ExitStack) -> list[Part]:
    workers = [stack.new_worker() for _ in range(count)]
    for worker in workers:
        cleanup.callback(worker.stop)
        worker.start()
    for worker in workers:
        worker.await_ready()
    return workers


def _peer(ground: Ground, entry: Entry, python: Path, cleanup: ExitStack) -> Contestant:
    home = ground.servers.new_home()
    cleanup.callback(ground.servers.drop_home, home)
    ledger = _new_ledger(ground, entry)
    places = Places(
        broker_url=home.broker_url,
        database_url=home.database_url,
        redis_url=ground.redis.url(_RESULTS_DB),
        ledger=str(ledger.path),
        results=entry.results,
    )
    agent = _agent(ground, entry, str(python), places, cleanup)
    workers = _workers(ground, entry, (str(python), *agent.ready.worker), places)
    for worker in workers:
        cleanup.callback(worker.stop, within_seconds=_STOP_SECONDS)
        worker.start()

    return Contestant(
        entry=entry,
        agent=agent,
        new_agent=partial(_agent, ground, entry, str(python), places, cleanup),
        ledger=ledger,
        processes=workers,
        workers=workers,
        server_usage=ground.usage,
        stop_worker=lambda: _stop_all(workers),
    )


def _stop_all(workers: Sequence[Process | Part]) -> None:
    for worker in workers:
        worker.stop(within_seconds=_STOP_SECONDS)


def _pids(processes: Sequence[Process]) -> list[int]:
    return [process.pid for process in processes if process.alive]


def _workers(ground: Ground, entry: Entry, argv: tuple[str, ...], places: Places) -> list[Process]:
    command = Command(
        name=f"the worker of {entry.title}",
        argv=argv,
        log=ground.folder / f"{entry.key}-worker.log",
        env=_environment(places),
    )
    return [Process(command) for _ in range(entry.workers)]


def _new_ledger(ground: Ground, entry: Entry) -> Ledger:
    return Ledger(ground.folder / f"{entry.key}.ledger")


def _agent(ground: Ground, entry: Entry, python: str, places: Places, cleanup: ExitStack) -> Remote:
    agent = Remote(
        name=entry.title,
        python=python,
        module=entry.module,
        environment=_environment(places),
        log=ground.folder / f"{entry.key}-agent.log",
    )
    cleanup.callback(agent.stop)
    agent.start()
    return agent


def _environment(places: Places) -> dict[str, str]:
    return {**CLEAN_ENVIRONMENT, **places.environment(), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
