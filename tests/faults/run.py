"""One fault run: load on a native stack, kills on a timeline, healing, draining, and the verdict."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from threading import Event

from tests.faults.evidence import Backlog, backlog, count_ended, gather, live_states, watch
from tests.faults.ledger import Ledger, judge
from tests.faults.load import Load, loading
from tests.faults.plan import Kill, Victim, kills
from tests.faults.platform_api import show
from tests.faults.single import hand_in
from tests.faults.tasks import EFFECTS_VARIABLE
from tests.fixtures.waiting import eventually
from tests.native.part import Part
from tests.native.servers import Servers
from tests.native.stack import Programs, Stack

_STEP_SECONDS = 0.1
_TELL_SECONDS = 10.0
_READY_SECONDS = 30.0
_QUIET_SECONDS = 3.0
_IDLE_BOUND_SECONDS = 5.0
_ORPHAN_SECONDS = 10.0

# Shorter than in production, so that a run of minutes sees every rescue several times.
SETTINGS = {
    "task_modules": ("tests.faults.tasks",),
    "worker_processes": 2,
    "lease_seconds": 5.0,
    "lease_renew_seconds": 1.0,
    "stranded_after_seconds": 5.0,
    "relay_after_seconds": 1.0,
    "log_level": "WARNING",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a run is: jobs, kills of each victim, over which time, and how long draining may take."""

    jobs: int
    kills_each: int
    over_seconds: float
    drain_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The ledger, how often each victim was killed, and what else went wrong."""

    ledger: Ledger
    kills: dict[Victim, int]
    troubles: list[str]

    @property
    def kept(self) -> bool:
        """Whether every promise held and the run itself was as it should be."""
        return not self.ledger.breaches and not self.troubles


@dataclass(slots=True)
class FaultRun:
    """One run on a stack that is up; `tell` gets a line for everything that happens."""

    stack: Stack
    folder: Path
    size: Size
    seed: int
    tell: Callable[[str], None]
    killed: Counter[Victim] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _told: float = 0.0
    _random: Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)

    def execute(self) -> Verdict:
        """Submit, kill, heal, drain and judge."""
        watch(self.stack.home.database_url)
        timeline = kills(self.seed, self.size.kills_each, self.size.over_seconds)
        self._began = time.monotonic()
        with loading(self._load()) as load:
            for kill in timeline:
                self._wait_until(kill.at_seconds)
                self._carry_out(kill)
            while load.poll() is None:
                self._step()
        if load.returncode != 0:
            self.troubles.append(f"the load ended with status {load.returncode}")
        self._drain()
        self._check_idle()
        return Verdict(ledger=self._judge(), kills=dict(self.killed), troubles=self.troubles)

    @property
    def history(self) -> Path:
        """Where the exchanges of the load are written down."""
        return self.folder / "history.jsonl"

    def _load(self) -> Load:
        return Load(
            port=self.stack.settings.api_port,
            key=self.stack.key,
            seed=self.seed,
            jobs=self.size.jobs,
            over_seconds=self.size.over_seconds,
            history=str(self.history),
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _wait_until(self, at_seconds: float) -> None:
        while self._seconds() < at_seconds:
            self._step()

    def _step(self) -> None:
        for part in self.stack.parts:
            if not part.process.alive:
                self.troubles.append(f"{part.command.name} died by itself: {part.process.log_tail(3)}")
                part.process.kill()
                part.start()
        if self._seconds() > self._told + _TELL_SECONDS:
            self._told = self._seconds()
            ended = count_ended(self.stack.home.database_url)
            live = live_states(self.stack.home.database_url)
            shown = "".join(f", {count} {state}" for state, count in live.items())
            self.tell(f"{self._told:6.1f} s  {ended} jobs ended{shown}; {self.killed.total()} kills")
        Event().wait(_STEP_SECONDS)

    def _carry_out(self, kill: Kill) -> None:
        part = self._part_of(kill.victim)
        deadline = self._seconds() + _READY_SECONDS
        while not (part.ready() and (kill.victim is not Victim.CHILD or part.children())):
            if self._seconds() > deadline:
                self.troubles.append(f"{part.command.name} was not ready again within {_READY_SECONDS:g} s")
                return
            self._step()
        if kill.victim is Victim.CHILD:
            pid = self._random.choice(part.children())
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        else:
            pid = part.process.pid
            part.kill_and_restart()
        self.killed[kill.victim] += 1
        self.tell(f"{self._seconds():6.1f} s  SIGKILL {kill.victim}, process {pid}")

    def _part_of(self, victim: Victim) -> Part:
        match victim:
            case Victim.API:
                return self.stack.api
            case Victim.DISPATCHER:
                return self.stack.dispatcher
            case Victim.PARENT | Victim.CHILD:
                return self.stack.worker

    def _drain(self) -> None:
        deadline = time.monotonic() + self.size.drain_seconds
        left = self._backlog()
        while not left.empty:
            if time.monotonic() > deadline:
                self.troubles.append(f"not drained within {self.size.drain_seconds:g} s: {left}")
                return
            self._step()
            left = self._backlog()
        self.tell(f"{self._seconds():6.1f} s  drained")
        try:
            eventually(lambda: not self.stack.worker.orphans(), within_seconds=_ORPHAN_SECONDS)
        except AssertionError:
            self.troubles.append(f"children outlived their parent: {self.stack.worker.orphans()}")

    def _backlog(self) -> Backlog:
        return backlog(self.stack.home.database_url, self.stack.messages)

    def _check_idle(self) -> None:
        Event().wait(_QUIET_SECONDS)
        before = count_ended(self.stack.home.database_url)
        hand_in(self.stack, self.history, self.seed, self.size.jobs)
        try:
            eventually(lambda: count_ended(self.stack.home.database_url) > before, within_seconds=_IDLE_BOUND_SECONDS)
        except AssertionError:
            self.troubles.append(
                f"after {_QUIET_SECONDS:g} quiet seconds a job did not end in {_IDLE_BOUND_SECONDS:g} s"
            )

    def _judge(self) -> Ledger:
        evidence = gather(
            self.history, self.folder / "effects", self.stack.home.database_url, lambda ids: show(self.stack, ids)
        )
        return judge(evidence, self.seed)


def run(
    servers: Servers, seed: int, size: Size, tell: Callable[[str], None], programs: Programs | None = None
) -> Verdict:
    """Start a platform on these servers, carry out one run, and stop it again."""
    folder = Path(mkdtemp(prefix="run-", dir=servers.folder))
    effects = folder / "effects"
    effects.mkdir()
    with Stack(servers, SETTINGS, programs or Programs(), {EFFECTS_VARIABLE: str(effects)}) as stack:
        return FaultRun(stack, folder, size, seed, tell).execute()
