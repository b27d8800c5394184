"""The metrics of an API of several processes: each is seen, whichever answers on the port they share."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from taskplatform.servers import free_ports, hold_port
from taskplatform.settings import Settings, environment_of
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import EVERY_SCOPE, add_key, api_settings

__all__ = ["api_settings"]

ROOT = Path(__file__).parents[2]
JOBS = 60


@pytest.fixture
def two_processes(api_settings: Settings, database: str) -> Iterator[Settings]:
    """An API of two processes whose metrics have ports of their own."""
    shared, first = _ports()
    settings = api_settings.changed(api_port=shared, api_processes=2, metrics_port=first)
    process = subprocess.Popen(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env={**environment_of(settings), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: all(_scrape(settings)), within_seconds=60)
        yield settings
    finally:
        process.terminate()
        process.wait(60)


def test_every_job_is_counted_once_over_the_processes(two_processes: Settings, database: str) -> None:
    _submit(two_processes, database)

    counted = [_value(text, r"tp_jobs_submitted_total{.*}") for text in _scrape(two_processes)]

    assert sum(counted) == JOBS


@pytest.mark.long
def test_the_shared_port_shows_no_metrics_of_whoever_answers(two_processes: Settings) -> None:
    answer = httpx2.get(f"http://127.0.0.1:{two_processes.api_port}/metrics")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_process_that_is_started_anew_takes_the_place_of_the_dead_one(two_processes: Settings) -> None:
    before = {_process(text) for text in _scrape(two_processes)}
    started = _started_at(two_processes.metrics_port)

    os.kill(_pid_on(two_processes.metrics_port), signal.SIGKILL)

    eventually(lambda: all(_scrape(two_processes)) and _started_at(two_processes.metrics_port) > started, 60)
    assert {_process(text) for text in _scrape(two_processes)} != before


def _ports() -> tuple[int, int]:
    # The second process takes the port after that of the first: it has to be promised to us as well.
    shared, first = free_ports(2)
    while hold_port(first + 1) is None:
        (first,) = free_ports(1)
    return shared, first


def _scrape(settings: Settings) -> list[str]:
    return [_get(settings.metrics_port + number) for number in range(settings.api_processes)]


def _get(port: int) -> str:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    except httpx2.HTTPError:
        return ""


def _submit(settings: Settings, database: str) -> None:
    key = add_key(database, "acme", EVERY_SCOPE)
    url = f"http://127.0.0.1:{settings.api_port}/v1/jobs"

    def accepted() -> bool:
        # A connection each, so that both processes get some.
        answer = httpx2.post(url, headers={"authorization": f"Bearer {key}"}, json={"task": "anything", "args": [1]})
        return answer.status_code == 202

    assert sum(accepted() for _ in range(JOBS)) == JOBS


def _value(text: str, pattern: str) -> float:
    return sum(float(found) for found in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))


def _process(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("process_start_time_seconds "))


def _started_at(port: int) -> float:
    return _value(_get(port), "process_start_time_seconds")


def _pid_on(port: int) -> int:
    sockets = Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    wanted = f"0100007F:{port:04X}"
    (inode,) = [fields[9] for line in sockets if (fields := line.split())[1] == wanted and fields[3] == "0A"]
    return next(
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if any(_leads_to(link, f"socket:[{inode}]") for link in _descriptors(process))
    )


def _descriptors(process: Path) -> list[Path]:
    # Of all processes of the machine some end while they are looked at.
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []


def _leads_to(link: Path, target: str) -> bool:
    try:
        return str(link.readlink()) == target
    except OSError:
        return False
