"""One fault run on the clusters: an open load, faults one after the other, healing, draining, and the verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import reduce
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from threading import Event

import psycopg

from taskplatform.servers import ServerError, started
from tests.faults.evidence import Evidence, backlog, gather, joined, live_states, watch
from tests.faults.ledger import Ledger, judge
from tests.faults.load import Load, loading
from tests.faults.platform_api import ask, show
from tests.faults.run import SETTINGS
from tests.faults.single import hand_in
from tests.faults.tasks import EFFECTS_VARIABLE
from tests.fixtures.waiting import eventually
from tests.ha.faults import Fault, Heal
from tests.ha.gaps import Gaps, Successes, gaps
from tests.ha.neighbours import LEAST_SHARE, lives_in_first, neighbours_share
from tests.ha.reads import Reader
from tests.ha.servers import HaServers
from tests.ha.stack import HaStack
from tests.native.stack import Programs

_STEP_SECONDS = 0.1
_CONNECTIONS = 2000
_KEYLESS_SHARE = 0.5
_READ_NUMBER = 1_000_000
_STEP_NUMBER = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much load for how long: before the first fault, for each fault after it is healed, and how long to drain."""

    jobs_per_second: float
    before_seconds: float = 6.0
    after_seconds: float = 15.0
    drain_seconds: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The ledger, how long each fault was felt, what took longer than is allowed, and what else went wrong.

    `neighbours` is the share of submissions that were accepted though another cluster was gone; None with one cluster.
    """

    ledger: Ledger
    neighbours: float | None
    felt: dict[str, Gaps]
    slow: list[str]
    troubles: list[str]

    @property
    def kept(self) -> bool:
        """Whether every promise held, in time too."""
        return not (self.ledger.breaches or self.troubles or self.slow)


@dataclass(slots=True)
class HaRun:
    """One run on a stack that is up, on databases at `dsns`; `tell` gets a line for everything that happens."""

    servers: HaServers
    dsns: Sequence[str]
    stack: HaStack
    folder: Path
    pace: Pace
    seed: int
    tell: Callable[[str], None]
    troubles: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _struck: list[tuple[Fault, float, float]] = field(default_factory=list)

    def execute(self, faults: Sequence[Fault]) -> Verdict:
        """Submit, strike, heal, drain and judge."""
        for dsn in self.dsns:
            watch(dsn)
        read_id = self._finished_job()
        after = self.pace.after_seconds
        seconds = self.pace.before_seconds + sum(fault.heal_after_seconds + after for fault in faults)
        reading = Reader(self.stack.settings.api_port, self.stack.key, read_id)
        with reading as reader, loading(self._load(seconds)) as load:
            self._began = time.monotonic()
            until = self._began + self.pace.before_seconds
            self._pass_time(until)
            for fault in faults:
                # Strike and healing take time out of it: the load lasts no longer.
                until += fault.heal_after_seconds + after
                self._carry_out(fault, until)
            while load.poll() is None:
                self._step()
        if load.returncode != 0:
            self.troubles.append(f"the load ended with status {load.returncode}")
        self.servers.await_whole()
        self._drain()
        evidence = self._gather()
        felt = self._felt(evidence, reader)
        slow = [
            f"{fault.name}, {found}" for fault, _, _ in self._struck for found in felt[fault.name].beyond(fault.bounds)
        ]
        neighbours = self._neighbours(evidence)
        if neighbours is not None and neighbours < LEAST_SHARE:
            slow.append(f"jobs of the other cluster: {neighbours:.2%} accepted, at least {LEAST_SHARE:.1%} have to be")
        return Verdict(
            ledger=judge(evidence, self.seed), neighbours=neighbours, felt=felt, slow=slow, troubles=self.troubles
        )

    @property
    def history(self) -> Path:
        """Where the exchanges of the load are written down."""
        return self.folder / "history.jsonl"

    def _finished_job(self) -> str:
        made = (hand_in(self.stack, self.history, self.seed, number) for number in count(_READ_NUMBER, _STEP_NUMBER))
        job = next(job for job in made if len(self.dsns) == 1 or lives_in_first(job))
        shown = f"/v1/jobs/{job}"
        eventually(lambda: asyncio.run(ask(self.stack, "GET", shown))["state"] == "succeeded", within_seconds=30.0)
        return job

    def _load(self, seconds: float) -> Load:
        return Load(
            port=self.stack.settings.api_port,
            key=self.stack.key,
            seed=self.seed,
            jobs=int(self.pace.jobs_per_second * seconds),
            over_seconds=seconds,
            history=str(self.history),
            connections=_CONNECTIONS,
            keyless_share=_KEYLESS_SHARE,
        )

    def _carry_out(self, fault: Fault, until: float) -> None:
        struck = time.time()
        heal = fault.strike(self.servers, self.stack)
        try:
            self._tell(f"{fault.name}")
            self._pass_time(time.monotonic() + fault.heal_after_seconds)
        finally:
            # A run that is ended in between too: what is frozen, or waits for it, cannot be told to stop.
            self._heal(fault, heal)
        self._pass_time(until)
        self._struck.append((fault, struck, time.time()))

    def _heal(self, fault: Fault, heal: Heal) -> None:
        heal()
        if fault.heal_after_seconds:
            self._tell(f"{fault.name}: healed")

    def _pass_time(self, until: float) -> None:
        while time.monotonic() < until:
            self._step()

    def _step(self) -> None:
        for part in self.stack.parts:
            # The one API that a fault has killed is started again by its healing.
            if not part.process.alive and part is not self.stack.api:
                self.troubles.append(f"{part.command.name} died by itself: {part.process.log_tail(3)}")
                part.process.kill()
                part.start()
        Event().wait(_STEP_SECONDS)

    def _drain(self) -> None:
        deadline = time.monotonic() + self.pace.drain_seconds
        while not self._drained():
            if time.monotonic() > deadline:
                live = [live_states(dsn) for dsn in self.dsns]
                self.troubles.append(f"not drained within {self.pace.drain_seconds:g} s: {live}")
                return
            self._step()
        self._tell("drained")

    def _drained(self) -> bool:
        try:
            return all(backlog(dsn, self.stack.messages).empty for dsn in self.dsns)
        except (psycopg.OperationalError, ServerError):
            return False

    def _gather(self) -> Evidence:
        effects = self.folder / "effects"
        return reduce(
            joined, (gather(self.history, effects, dsn, lambda ids: show(self.stack, ids)) for dsn in self.dsns)
        )

    def _neighbours(self, evidence: Evidence) -> float | None:
        if len(self.dsns) == 1:
            return None
        fault, struck, _ = next(each for each in self._struck if each[0].sharded)
        return neighbours_share(evidence.exchanges, struck, struck + fault.heal_after_seconds)

    def _felt(self, evidence: Evidence, reader: Reader) -> dict[str, Gaps]:
        accepted = [exchange for exchange in evidence.exchanges if any(exchange.ids)]
        successes = Successes(
            keyed=[exchange.answered_at for exchange in accepted if exchange.keys[0]],
            unkeyed=[exchange.answered_at for exchange in accepted if not exchange.keys[0]],
            starts=[effect.at for effect in evidence.effects if not effect.done],
            reads=reader.good,
        )
        if reader.bad:
            self._tell(f"reads that failed: {reader.bad}")
        return {fault.name: gaps(successes, begin, end) for fault, begin, end in self._struck}

    def _tell(self, line: str) -> None:
        self.tell(f"{time.monotonic() - self._began:6.1f} s  {line}")


def run(servers: HaServers, faults: Sequence[Fault], seed: int, pace: Pace, tell: Callable[[str], None]) -> Verdict:
    """Start a platform on the clusters, carry out one run, and stop it again."""
    folder = Path(mkdtemp(prefix="run-", dir=servers.folder))
    effects = folder / "effects"
    effects.mkdir()
    wanted = dict(SETTINGS)
    if any(fault.cached for fault in faults):
        wanted["cache_url"] = servers.redis.url()
    with ExitStack() as cleanup:
        stack = HaStack(servers, wanted, Programs(), {EFFECTS_VARIABLE: str(effects)})
        dsns = [stack.home.database_url]
        if any(fault.sharded for fault in faults):
            second = cleanup.enter_context(started(servers.second_postgres))
            dsns.append(second.create_database(stack.home.name))
            stack.wanted = {**wanted, "database_cluster_urls": dsns[1]}
        cleanup.enter_context(stack)
        return HaRun(servers, dsns, stack, folder, pace, seed, tell).execute(faults)
