"""The agent of a side, seen from the program that measures."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.orders import Count, Numbers, Order, Ready, Submit, Timing

_ROOT = Path(__file__).resolve().parents[1]
_START_SECONDS = 60.0
_COUNT_SECONDS = 30.0


@dataclass(slots=True)
class Remote:
    """One agent; it ends when its standard input is closed."""

    name: str
    python: str
    module: str
    environment: Mapping[str, str]
    log: Path
    ready: Ready = field(init=False)
    _process: subprocess.Popen[str] = field(init=False)

    def start(self) -> None:
        """Start it, and return when its side is prepared. Raises RuntimeError with the end of its log."""
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [self.python, "-m", "benchmarks.agent", self.module],
                cwd=_ROOT,
                env=dict(self.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.ready = self._answer(Ready, _START_SECONDS)

    def stop(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def submit(self, order: Submit) -> None:
        """Let it begin to submit; `timing` waits for the end."""
        self._send(order)

    def timing(self, within_seconds: float) -> Timing:
        """Wait until everything is submitted. Raises RuntimeError when that fails or takes too long."""
        timing: Timing = self._answer(Timing, within_seconds)
        return timing

    def count(self) -> int:
        """Count what the side has stored."""
        self._send(Count())
        stored: int = self._answer(int, _COUNT_SECONDS)
        return stored

    def numbers(self) -> list[int] | None:
        """Give the numbers that the side has stored, None where it only knows how many."""
        self._send(Numbers())
        found: list[int] | None = self._answer(list[int] | None, _COUNT_SECONDS)
        return found

    def _send(self, order: Order) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(order).decode() + "\n")
            self._process.stdin.flush()

    def _answer(self, kind: Any, within_seconds: float) -> Any:
        stream = self._process.stdout
        line = stream.readline() if stream is not None and select.select([stream], [], [], within_seconds)[0] else ""
        if not line:
            self._process.kill()
            raise RuntimeError(f"{self.name}: no answer from its agent\n{self._log_tail()}")
        return msgspec.json.decode(line, type=kind)

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
