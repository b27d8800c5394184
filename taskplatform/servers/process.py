"""A server as an ordinary child process: started, awaited, frozen, stopped, and never left behind by its owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from taskplatform.servers import trees
from taskplatform.servers.accounts import Account
from taskplatform.servers.configuration import CLEAN_ENVIRONMENT
from taskplatform.servers.errors import ServerError, ServerMissing

_POLL_SECONDS = 0.05

# Ends the process group $1 when its standard input closes, which the system sees to however the owner died. A frozen
# child in a session of its own (a Postgres backend) is woken, so that it notices that its parent is gone.
_GUARD = """
read -r _
kill -s CONT -- "-$1" $(cat "/proc/$1/task/"*/children)
kill -s "$2" -- "-$1"
tries=0
while kill -0 -- "-$1" && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -s KILL -- "-$1"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run, as whom, and how it likes to be told to stop."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM


class Process:
    """One running command, in a session of its own, that ends when this process ends.

    It sees CLEAN_ENVIRONMENT and the command's `env`, nothing else of ours. Not safe to share between threads.
    """

    def __init__(self, command: Command) -> None:
        self.command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the process that was started; raises ServerError when there is none."""
        if self._child is None:
            raise ServerError(f"{self.command.name} is not running")
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended; a frozen process is alive."""
        return self._child is not None and self._child.poll() is None

    def start(self, ready: Callable[[], bool] | None = None, *, within_seconds: float = 60.0) -> None:
        """Start it and return when `ready` answers True.

        Raises ServerError with the end of its log when it dies first or the time is over; it is then stopped.
        """
        if self.alive:
            raise ServerError(f"{self.command.name} is already running")
        try:
            with _signals_held():
                self._spawn()
        except BaseException:
            self.kill()
            raise
        if ready is not None:
            self.await_ready(ready, within_seconds=within_seconds)

    def await_ready(self, ready: Callable[[], bool], *, within_seconds: float = 60.0) -> None:
        """Return when `ready` answers True, for a process that was started before.

        Raises ServerError with the end of its log when it dies first or the time is over; it is then stopped.
        """
        deadline = time.monotonic() + within_seconds
        try:
            while not ready():
                if (status := self.wait(0)) is not None:
                    raise self._failure(f"ended with status {status} before it was ready")
                if time.monotonic() > deadline:
                    raise self._failure(f"was not ready within {within_seconds:g} s")
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self.kill()
            raise

    def wait(self, within_seconds: float) -> int | None:
        """Return the exit status as soon as it has ended (minus the signal's number if one killed it), else None."""
        if self._child is None:
            return None
        try:
            return self._child.wait(within_seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, *, within_seconds: float = 20.0) -> None:
        """Ask it to stop, and kill it when it has not within the time. May be called at any time, and again."""
        if self.alive:
            self.thaw()
            trees.send([self.pid], self.command.stop_signal)
            self.wait(within_seconds)
        self.kill()

    def kill(self) -> None:
        """Kill it and everything below it at once, as a crash of its machine would. May be called again."""
        if self.alive:
            trees.kill(self.pid)
        if self._child is not None:
            self._child.wait()
        self._dismiss_guard()
        self._child = None

    def sweep(self) -> None:
        """Kill what it left behind when it ended by itself; to be called at once, while its id is still its own."""
        if self._child is not None and not self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it and everything below it in the middle of what they do; connections to it hang."""
        trees.freeze(self.pid)

    def thaw(self) -> None:
        """Let a frozen process and everything below it go on."""
        trees.thaw(self.pid)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that it wrote."""
        try:
            return "\n".join(self.command.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def _spawn(self) -> None:
        command = self.command
        account = command.account
        try:
            with command.log.open("ab") as log:
                self._child = subprocess.Popen(
                    command.argv,
                    env={**CLEAN_ENVIRONMENT, **command.env},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=account.uid if account else None,
                    group=account.gid if account else None,
                    extra_groups=[account.gid] if account else None,
                )
        except OSError as error:
            raise ServerMissing(f"cannot start {command.name}: {error}") from error
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self.pid), command.stop_signal.name.removeprefix("SIG")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _dismiss_guard(self) -> None:
        if self._guard is None:
            return
        # Killed before its pipe closes, or it would do its work on a process id that may be another's by now.
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard = None

    def _failure(self, what: str) -> ServerError:
        return ServerError(f"{self.command.name} {what}; the end of {self.command.log}:\n{self.log_tail()}")


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    # An exception out of a signal's handler between the start of a process and that of its guard would leave it behind.
    came: list[int] = []
    before: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                handler = signal.getsignal(number)
                if callable(handler):
                    before[number] = handler
                    signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for held in came:
            signal.raise_signal(held)
