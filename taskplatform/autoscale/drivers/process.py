"""Workers as processes of this machine; a folder knows them, so that the next autoscaler finds them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgspec

from taskplatform.autoscale.contract import KILL_AFTER_SECONDS, Member
from taskplatform.errors import DriverUnavailable, SettingsError
from taskplatform.settings import PREFIX, Settings, environment_of
from taskplatform.telemetry import logger

LONGEST_WAIT_SECONDS = 60.0
_YOUNG_SECONDS = 15.0
_POLL_SECONDS = 0.1

_log = logger(__name__)


class _Kept(msgspec.Struct):
    """What a file says about a worker: `born` is the start of the process in clock ticks, for ids are used again."""

    pid: int
    born: int
    pool: str
    started: float
    draining_since: float | None = None


@dataclass(slots=True)
class _Worker:
    name: str
    kept: _Kept
    child: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        if self.child is not None:
            return self.child.poll() is None
        return _born(self.kept.pid) == self.kept.born


@dataclass(slots=True)
class _Patience:
    """Grows while the workers of a pool die young."""

    wait_seconds: float = 0.0
    again_at: float = 0.0

    def died_young(self, now: float) -> None:
        self.wait_seconds = min(max(2 * self.wait_seconds, 1.0), LONGEST_WAIT_SECONDS)
        self.again_at = now + self.wait_seconds

    def lived(self) -> None:
        self.wait_seconds = self.again_at = 0.0


class Processes:
    """Starts `python -m workers`, and stops it by SIGTERM, upon which a worker drains.

    `folder` holds a file and a log for each. Workers outlive an autoscaler that crashed, and the next one over the same
    folder takes them over; one that stops in good order drains them. Raises SettingsError while another has the folder.
    """

    def __init__(
        self, settings: Settings, folder: Path, *, inherited: Mapping[str, str] | None = None, grace_seconds: float
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._inherited = os.environ if inherited is None else inherited
        self._grace_seconds = grace_seconds
        self._workers: dict[str, _Worker] = {}
        self._patience: dict[str, _Patience] = {}
        self._lock = _take(folder)
        self._find()

    async def members(self, pool: str) -> list[Member]:
        """Give the processes that have not ended; one that outstays its grace is killed on the way."""
        self._tend()
        now = time.time()
        return [
            Member(
                id=worker.name,
                pool=pool,
                host=socket.gethostname(),
                pid=worker.kept.pid,
                age_seconds=now - worker.kept.started,
                draining=worker.kept.draining_since is not None,
            )
            for worker in self._workers.values()
            if worker.kept.pool == pool
        ]

    async def grow(self, pool: str, size: int) -> None:
        """Start processes. Raises DriverUnavailable while those that were started last died young."""
        patience = self._patience.setdefault(pool, _Patience())
        if patience.again_at > time.monotonic():
            raise DriverUnavailable(f"its workers die young; the log of the last one is in {self._folder}")
        active = sum(not member.draining for member in await self.members(pool))
        for _ in range(size - active):
            self._start(pool)

    async def shrink(self, pool: str, victims: Sequence[Member], size: int) -> None:
        """Tell processes to end once their jobs have."""
        for victim in victims:
            if (worker := self._workers.get(victim.id)) is not None:
                self._drain(worker)

    async def close(self) -> None:
        """Drain all workers; returns when all have ended."""
        for worker in self._workers.values():
            self._drain(worker)
        while self._workers:
            self._tend()
            await asyncio.sleep(_POLL_SECONDS)
        os.close(self._lock)

    def _start(self, pool: str) -> None:
        name = f"{pool}-{uuid4().hex[:8]}"
        kept = {key: value for key, value in self._inherited.items() if not key.startswith(PREFIX)}
        own = self._settings.changed(worker_pool=pool, metrics_port=0)
        try:
            with (self._folder / f"{name}.log").open("ab") as log:
                child = subprocess.Popen(
                    [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "workers"],
                    env={**kept, **environment_of(own), "PYTHONUNBUFFERED": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise DriverUnavailable(f"a worker cannot be started: {error}") from error
        worker = _Worker(name, _Kept(pid=child.pid, born=_born(child.pid) or 0, pool=pool, started=time.time()), child)
        self._workers[name] = worker
        self._write(worker)

    def _drain(self, worker: _Worker) -> None:
        if worker.kept.draining_since is not None:
            return
        if worker.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.kept.pid, signal.SIGTERM)
        # Afterwards: one that is noted as draining and never heard of it would be killed in the middle of its work.
        worker.kept.draining_since = time.time()
        self._write(worker)

    def _tend(self) -> None:
        now = time.time()
        for worker in list(self._workers.values()):
            kept = worker.kept
            if not worker.alive:
                self._forget(worker, now)
            elif kept.draining_since is not None:
                if now - kept.draining_since > self._grace_seconds + KILL_AFTER_SECONDS:
                    _log.warning("a worker outstayed its grace and is killed", worker=worker.name)
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(kept.pid, signal.SIGKILL)
            elif now - kept.started > _YOUNG_SECONDS:
                self._patience.setdefault(kept.pool, _Patience()).lived()

    def _forget(self, worker: _Worker, now: float) -> None:
        kept = worker.kept
        del self._workers[worker.name]
        (self._folder / f"{worker.name}.json").unlink(missing_ok=True)
        if kept.draining_since is not None:
            # Of what ended in good order nobody wants the log.
            (self._folder / f"{worker.name}.log").unlink(missing_ok=True)
            return
        _log.warning("a worker died", worker=worker.name, log=str(self._folder / f"{worker.name}.log"))
        with contextlib.suppress(ProcessLookupError):
            # What it left behind; nobody else can have its id while its group lives.
            os.killpg(kept.pid, signal.SIGKILL)
        if now - kept.started < _YOUNG_SECONDS:
            self._patience.setdefault(kept.pool, _Patience()).died_young(time.monotonic())

    def _find(self) -> None:
        for path in self._folder.glob("*.json"):
            try:
                worker = _Worker(path.stem, msgspec.json.decode(path.read_bytes(), type=_Kept))
            except (OSError, msgspec.DecodeError):
                # Half written by one that died over it: its worker is found by nobody, and is rescued when it ends.
                path.unlink(missing_ok=True)
                continue
            if worker.alive:
                self._workers[worker.name] = worker
            else:
                path.unlink(missing_ok=True)

    def _write(self, worker: _Worker) -> None:
        path = self._folder / f"{worker.name}.json"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(worker.kept))
        fresh.replace(path)


def _take(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"workers cannot be kept in {folder}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SettingsError(f"another autoscaler has the workers in {folder}") from None
    return lock


def _born(pid: int) -> int | None:
    # When a process started, in clock ticks since the machine did; None when there is none, or only its corpse.
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
