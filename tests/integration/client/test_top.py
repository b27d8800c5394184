"""`taskplatform top` in a terminal, and without one."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskplatform.client import Client
from taskplatform.settings import environment_of
from tests.fixtures.waiting import eventually
from tests.integration.client.tasks import add, refuse, wait_for
from tests.native.stack import Stack

_SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9])")
_HOME = "\x1b[H"


class Screen:
    """A terminal with the command in it, and what it shows."""

    def __init__(self, terminal: int, process: subprocess.Popen[bytes]) -> None:
        self._terminal = terminal
        self._process = process
        self._seen = ""

    def shows(self, *texts: str, within_seconds: float = 30.0) -> str:
        """Wait until one frame has all of these, and give it."""
        deadline = time.monotonic() + within_seconds
        while True:
            for frame in self._seen.split(_HOME):
                plain = _SEQUENCE.sub("", frame)
                if all(text in plain for text in texts):
                    return plain
            assert time.monotonic() < deadline, f"{texts} not in:\n{_SEQUENCE.sub('', self._seen)[-3000:]}"
            self._read()

    def press(self, key: str) -> None:
        os.write(self._terminal, key.encode())

    def ends(self) -> int:
        """Give the exit status."""
        return eventually(self._ended, within_seconds=20)[0]

    def _ended(self) -> tuple[int, ...]:
        self._read()
        status = self._process.poll()
        return () if status is None else (status,)

    def _read(self) -> None:
        ready, _, _ = select.select([self._terminal], [], [], 0.1)
        if ready:
            try:
                self._seen += os.read(self._terminal, 65_536).decode(errors="replace")
            except OSError:
                # The other end is closed.
                return


@contextmanager
def top(environment: dict[str, str], *words: str) -> Iterator[Screen]:
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "taskplatform.cli", "top", *words],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env={**os.environ, **environment, "TERM": "xterm", "COLUMNS": "130", "LINES": "40"},
    )
    os.close(inside)
    try:
        yield Screen(terminal, process)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


@pytest.fixture
def environment(platform: Stack) -> dict[str, str]:
    return {**environment_of(platform.settings), "TASKPLATFORM_API_KEY": platform.key}


def test_queues_workers_rates_and_dead_letters_are_seen_live(
    client: Client, environment: dict[str, str], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    with top(environment, "--every", "0.5s") as screen:
        screen.shows("per second:", "POOL", "WORKER", "ready")
        waiting = client.submit(wait_for, str(marker))
        delayed = client.submit(add.options(delay_seconds=3600), 1, 2)
        eventually(lambda: client.submit(refuse, "no").wait(5.0).done, within_seconds=30)

        frame = screen.shows("default", "dead letters", "1 workers")
        pace = screen.shows("accepted", "0.0 dead")
        screen.press("q")
        status = screen.ends()
        marker.touch()

    client.cancel(delayed.id)
    client.cancel(waiting.id)
    assert re.search(r"default@\S+ +default +\d+ +\d+ +ready", frame)
    assert re.search(r"[0-9.]+ accepted +[0-9.]+ attempts +[0-9.]+ ended", pace)
    assert status == 0


def test_without_a_terminal_one_frame_is_printed(client: Client, environment: dict[str, str]) -> None:
    delayed = client.submit(add.options(delay_seconds=3600), 1, 2)

    plain = run(environment)
    told: dict[str, Any] = json.loads(run(environment, "--json"))

    client.cancel(delayed.id)
    assert "\x1b" not in plain
    assert re.search(r"^default +[1-9]", plain, re.MULTILINE)
    assert told["overview"]["pools"]["default"]["scheduled"]["jobs"] >= 1
    assert [worker["pool"] for worker in told["overview"]["workers"]] == ["default"]
    assert set(told["per_second"]) == {"accepted", "attempts", "ended", "dead"}


def run(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "taskplatform.cli", "top", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
