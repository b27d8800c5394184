"""The supervisor over small real processes: what it starts, awaits, tells, starts again and stops."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskplatform.servers import Command, ServerError, free_ports
from taskplatform.supervisor import LONGEST_WAIT_SECONDS, STEADY_SECONDS, Service, Supervisor, ending
from tests.fixtures.waiting import eventually

_WELL = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
_NOTES_ITS_END = 'trap "echo $1 >> $2; exit" TERM; echo up; while :; do sleep 0.05; done'


class Clock:
    """A clock that only `advance` moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def supervisor(told: list[str], clock: Clock) -> Iterator[Supervisor]:
    supervisor = Supervisor(told.append, clock=clock)
    yield supervisor
    supervisor.stop()


def service(folder: Path, *argv: str, name: str = "part", health_url: str = "http://127.0.0.1:9/") -> Service:
    return Service(Command(name=name, argv=argv or ("sleep", "600"), log=folder / f"{name}.log"), health_url)


def answering(folder: Path, path: str = "/well") -> Service:
    port = free_ports(1)[0]
    return service(folder, sys.executable, "-c", _WELL, str(port), health_url=f"http://127.0.0.1:{port}{path}")


def die(supervisor: Supervisor, name: str = "part") -> None:
    process = supervisor.processes[name]
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(5.0) is not None


def test_services_that_start_together_are_well_when_the_start_returns(supervisor: Supervisor, tmp_path: Path) -> None:
    part = answering(tmp_path)

    supervisor.start_together({"part": part}, within_seconds=30.0)

    assert part.well()


def test_a_service_that_ends_at_once_is_reported_with_what_it_wrote(supervisor: Supervisor, tmp_path: Path) -> None:
    part = service(tmp_path, "sh", "-c", "echo no such table >&2; exit 3")

    with pytest.raises(ServerError, match=r"part ended with status 3 before it was ready(?s:.*)no such table"):
        supervisor.start_together({"part": part}, within_seconds=30.0)


def test_a_service_that_is_never_well_is_reported_when_the_time_is_over(supervisor: Supervisor, tmp_path: Path) -> None:
    part = answering(tmp_path, path="/ill")

    with pytest.raises(ServerError, match="part was not ready in time"):
        supervisor.start_together({"part": part}, within_seconds=0.3)


def test_what_died_is_told_in_one_line_and_runs_again_after_its_wait(
    supervisor: Supervisor, clock: Clock, told: list[str], tmp_path: Path
) -> None:
    supervisor.start("part", service(tmp_path))
    first = supervisor.processes["part"].pid
    die(supervisor)

    supervisor.watch_once()
    clock.advance(0.5)
    supervisor.watch_once()

    assert told == [f"part was killed by SIGKILL and is started again in 0.5 s; its log: {tmp_path / 'part.log'}"]
    assert supervisor.processes["part"].alive
    assert supervisor.processes["part"].pid != first


def test_what_keeps_dying_is_started_after_ever_longer_waits_up_to_a_bound(
    supervisor: Supervisor, clock: Clock, told: list[str], tmp_path: Path
) -> None:
    supervisor.start("part", service(tmp_path))
    for _ in range(8):
        die(supervisor)
        supervisor.watch_once()
        clock.advance(LONGEST_WAIT_SECONDS)
        supervisor.watch_once()

    waits = [float(line.partition("again in ")[2].partition(" s")[0]) for line in told]

    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS]


def test_what_ran_for_long_is_started_again_without_a_wait(
    supervisor: Supervisor, clock: Clock, tmp_path: Path
) -> None:
    supervisor.start("part", service(tmp_path))
    clock.advance(STEADY_SECONDS + 1)
    die(supervisor)

    supervisor.watch_once()
    supervisor.watch_once()

    assert supervisor.processes["part"].alive


def test_what_a_dead_process_left_behind_is_killed_before_it_runs_again(supervisor: Supervisor, tmp_path: Path) -> None:
    child = tmp_path / "child"
    supervisor.start(
        "part", service(tmp_path, "sh", "-c", f"sleep 600 & echo $! > {child}.new; mv {child}.new {child}; wait")
    )
    eventually(child.exists)
    die(supervisor)

    supervisor.watch_once()

    assert eventually(lambda: has_ended(int(child.read_text())))


def test_one_that_cannot_be_started_again_is_told_and_tried_again(
    supervisor: Supervisor, clock: Clock, told: list[str], tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.symlink_to("/bin/sleep")
    supervisor.start("part", service(tmp_path, str(program), "600"))
    program.unlink()
    die(supervisor)
    supervisor.watch_once()
    clock.advance(0.5)
    supervisor.watch_once()
    program.symlink_to("/bin/sleep")
    clock.advance(1.0)

    supervisor.watch_once()

    assert told[1].startswith("part did not start and is started again in 1 s: cannot start part:")
    assert supervisor.processes["part"].alive


def test_parts_are_stopped_one_by_one_and_the_last_one_first(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    for name in ("first", "second", "third"):
        supervisor.start(name, service(tmp_path, "sh", "-c", _NOTES_ITS_END, "sh", name, str(order), name=name))
        eventually((tmp_path / f"{name}.log").read_text)

    supervisor.stop()

    assert order.read_text().split() == ["third", "second", "first"]
    assert not supervisor.processes


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "ended with status 0"), (2, "ended with status 2"), (-9, "was killed by SIGKILL"), (-34, "was killed by S")],
)
def test_an_exit_status_reads_as_words(status: int, words: str) -> None:
    assert ending(status).startswith(words)


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
