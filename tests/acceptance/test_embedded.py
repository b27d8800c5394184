"""`taskplatform up` and the demo as a user runs them: started, hurt, killed and run again."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from taskplatform.client import Client
from taskplatform.settings import CONFIG_VARIABLE, load
from tests.fixtures.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 120.0
_SERVICES = ("api", "worker", "dispatcher", "flower", "postgres", "valkey")


_THREADED = """
import os, sys, threading
from taskplatform.client import Client
from taskplatform.embedded import Platform
from taskplatform.servers import started
from taskplatform.settings import load
threading.Thread(target=threading.Event().wait, daemon=True).start()
os.register_at_fork(before=lambda: os._exit(70))
wanted = load({}, data_dir=sys.argv[1], api_port=0, flower_port=0, task_modules="examples.documents")
with started(Platform(wanted)) as platform:
    with Client(platform.settings.api_url, key=(platform.data_dir / "api_key").read_text()) as client:
        client.submit("documents.terms", title="assert")
print("accepted")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A platform that runs in a process of its own, and what it has said so far."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    said: Path

    def client(self) -> Client:
        """Give a client as the client file describes it."""
        settings = load({CONFIG_VARIABLE: str(self.data_dir / "client.toml")})
        assert settings.api_key is not None
        return Client(settings.api_url, key=settings.api_key.get_secret_value())

    def lines(self) -> list[str]:
        """Read what it has said so far."""
        return self.said.read_text().splitlines()

    def pid_of(self, part: str) -> int:
        """Find the process of a part by its command line."""
        words = {
            "api": "-m api",
            "worker": "-m workers ",
            "dispatcher": "taskplatform.cli dispatcher",
            "flower": "-m workers.flower",
            "postgres": f"-D {self.data_dir / 'postgres'}",
            "valkey": "valkey-server 127.0.0.1",
        }[part]
        children = [pid for pid in tree(self.process.pid) if parent_of(pid) == self.process.pid]
        return next(pid for pid in children if words in command_line(pid))


@pytest.fixture(scope="module")
def shared(server_folder: Path) -> Iterator[Running]:
    """A platform that several tests use; each leaves it well."""
    with running(server_folder / "embedded-shared") as platform:
        yield platform


@pytest.fixture
def data_dir(server_folder: Path) -> Path:
    return server_folder / f"embedded-{uuid4().hex[:12]}"


def test_a_job_that_is_handed_in_comes_back_with_its_result(shared: Running) -> None:
    with shared.client() as client:
        result = client.submit("documents.terms", title="assert").result(timeout_seconds=30.0)

    assert result["title"] == "assert"
    assert result["words"] > 0


@pytest.mark.parametrize(
    ("file", "skipped"), [("client.toml", ["broker", "postgres", "task modules"]), ("operator.toml", ["task modules"])]
)
def test_the_doctor_finds_it_well_with_the_settings_that_it_writes(
    shared: Running, file: str, skipped: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taskplatform.cli", "doctor", "--json"],
        cwd=_ROOT,
        env={**os.environ, CONFIG_VARIABLE: str(shared.data_dir / file)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60.0,
    )
    findings = json.loads(done.stdout)

    assert done.returncode == 0, done.stdout
    assert sorted(finding["part"] for finding in findings if finding["health"] == "skipped") == skipped
    assert [finding for finding in findings if finding["health"] not in ("ok", "skipped")] == []


def test_flower_sees_the_worker_and_lets_nobody_in_without_a_key(shared: Running) -> None:
    place = next(line.split()[1].rstrip("/,") for line in shared.lines() if line.startswith("Flower"))
    key = (shared.data_dir / "api_key").read_text()

    with httpx2.Client(base_url=place, transport=httpx2.HTTPTransport()) as flower:
        # A test before may have killed it, and its successor not listen yet.
        eventually(lambda: status_of(flower, "/workers") == 401, 60.0)
        flower.headers["Authorization"] = f"Bearer {key}"
        eventually(lambda: any(worker["status"] for worker in workers_in(flower)), 30.0)


@pytest.mark.parametrize("part", _SERVICES)
def test_a_part_that_is_killed_is_told_and_runs_again_and_jobs_with_it(shared: Running, part: str) -> None:
    pid = shared.pid_of(part)
    before = len(shared.lines())

    os.kill(pid, signal.SIGKILL)

    eventually(lambda: any(line.startswith(f"{part} was killed by SIGKILL") for line in shared.lines()[before:]), 30.0)
    eventually(lambda: pid_again(shared, part, pid), 30.0)
    with shared.client() as client:
        assert client.submit("documents.terms", title="assert").result(timeout_seconds=60.0)["words"] > 0


def test_a_second_platform_on_the_same_folder_is_refused_in_one_line(shared: Running) -> None:
    second = up(shared.data_dir, subprocess.PIPE)
    _, errors = second.communicate(timeout=60.0)

    assert second.returncode == 1
    assert errors.decode() == f"taskplatform: a platform already runs on {shared.data_dir}\n"


def test_it_stops_when_asked_and_what_was_done_is_there_the_next_time(data_dir: Path) -> None:
    with running(data_dir) as platform:
        with platform.client() as client:
            handle = client.submit("documents.terms", title="assert")
            words = handle.result(timeout_seconds=30.0)["words"]
        parts = tree(platform.process.pid)
        platform.process.terminate()
        status = platform.process.wait(60.0)
    with running(data_dir) as again, again.client() as client:
        found = client.get(handle.id).result["words"]

    assert status == 0
    assert [pid for pid in parts if not has_ended(pid)] == []
    assert found == words


def test_nothing_runs_on_when_the_supervisor_is_killed(data_dir: Path) -> None:
    with running(data_dir) as platform:
        parts = tree(platform.process.pid)
        assert len(parts) > len(_SERVICES)

        platform.process.kill()

        eventually(lambda: all(map(has_ended, parts)), 30.0)


def test_a_service_that_cannot_start_ends_it_with_a_clear_error(data_dir: Path) -> None:
    process = up(data_dir, subprocess.PIPE, TASKPLATFORM_TASK_MODULES="no_such_pack")
    _, errors = process.communicate(timeout=_START_SECONDS)

    assert process.returncode == 1
    assert "no_such_pack" in errors.decode()
    assert "worker ended with status" in errors.decode()
    assert "Traceback" not in errors.decode()


def test_a_program_with_threads_starts_it_without_a_fork_which_could_hang_there(data_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _THREADED, str(data_dir)], cwd=_ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["accepted"]), done.stderr


def test_workers_follow_the_work_where_the_setting_says_so_and_end_with_the_platform(data_dir: Path) -> None:
    with running(data_dir, TASKPLATFORM_AUTOSCALE_DRIVER="process", TASKPLATFORM_FLOWER_PORT="0") as platform:
        eventually(lambda: bool(known_tasks(platform)), 60.0)
        with platform.client() as client:
            assert client.submit("documents.terms", title="assert").result(timeout_seconds=60.0)["words"] > 0
        parts = tree(platform.process.pid)
        assert any("-m workers" in command_line(pid) for pid in parts)
        platform.process.terminate()
        status = platform.process.wait(60.0)

    assert status == 0
    assert [pid for pid in parts if not has_ended(pid)] == []


def test_a_port_that_is_taken_is_told_and_another_one_used(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(data_dir, TASKPLATFORM_API_PORT=str(port)) as platform, platform.client() as client:
            assert client.tasks()
            assert any(line.startswith(f"Port {port} is taken: the API listens on") for line in platform.lines())


def test_the_demo_succeeds_twice_and_leaves_its_files(data_dir: Path) -> None:
    first, second = demo(data_dir), demo(data_dir)

    assert (first.returncode, second.returncode) == (0, 0), second.stdout + second.stderr
    assert "Every job ended as it should." in second.stdout
    assert len(list((data_dir / "output").iterdir())) > 100


def test_a_demo_whose_jobs_have_no_time_fails_and_says_which(data_dir: Path) -> None:
    done = demo(data_dir, "--within", "0")

    assert done.returncode == 1
    assert "Wrong: " in done.stdout


def test_the_demo_empties_no_folder_that_holds_other_things(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear reader")

    done = demo(tmp_path)

    assert done.returncode == 1
    assert "it is not emptied" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def up(data_dir: Path, output: int, **settings: str) -> subprocess.Popen[bytes]:
    chosen = {
        "TASKPLATFORM_DATA_DIR": str(data_dir),
        "TASKPLATFORM_TASK_MODULES": "examples.documents",
        "TASKPLATFORM_API_PORT": "0",
        **settings,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "taskplatform.cli", "up"],
        cwd=_ROOT,
        env={**os.environ, **chosen},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE if output == subprocess.PIPE else subprocess.STDOUT,
    )


@contextmanager
def running(data_dir: Path, **settings: str) -> Iterator[Running]:
    said = data_dir.with_suffix(".said")
    with said.open("wb") as output:
        process = up(data_dir, output.fileno(), **settings)
    try:
        eventually(lambda: "Ready after" in said.read_text() or process.poll() is not None, _START_SECONDS)
        assert process.poll() is None, said.read_text()
        yield Running(process=process, data_dir=data_dir, said=said)
    finally:
        process.terminate()
        process.wait(60.0)


def demo(data_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.demo", "--data-dir", str(data_dir), *options],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280.0,
    )


def status_of(flower: httpx2.Client, path: str) -> int:
    try:
        return flower.get(path).status_code
    except httpx2.TransportError:
        return 0


def workers_in(flower: httpx2.Client) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = flower.get("/workers", params={"json": 1}).json()["data"]
    except httpx2.RequestError:
        return []
    return found


def known_tasks(platform: Running) -> list[Any]:
    with platform.client() as client:
        return list(client.tasks())


def pid_again(platform: Running, part: str, before: int) -> bool:
    with suppress(StopIteration):
        return platform.pid_of(part) != before
    return False


def parent_of(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def tree(root: int) -> list[int]:
    parents = {int(path.name): parent_of(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
