"""The container engine of a trial: one that answers already, or Debian's, started for the trial and ended with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_TABLES = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


class NoEngine(Exception):
    """No engine runs here, and none can be started; the text says why."""


class CommandFailed(Exception):
    """A command of the trial did not do what it was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine that answers on `socket`; `started` says that it is the trial's own."""

    socket: Path
    started: bool

    @property
    def environment(self) -> dict[str, str]:
        """Give the environment in which commands speak to this engine."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
        # The legacy builder is what a plain Debian has; an engine of somebody else's chooses its own.
        builder = {"DOCKER_BUILDKIT": "0"} if self.started else {}
        return kept | builder | {"DOCKER_HOST": f"unix://{self.socket}"}

    def docker(self, *arguments: str, seconds: float = 120.0) -> str:
        """Run the engine's command line, and give what it says. Raises CommandFailed."""
        return run(["docker", *arguments], self.environment, seconds=seconds)


def run(command: Sequence[str], environment: dict[str, str], *, seconds: float) -> str:
    """Run a command and give its output. Raises CommandFailed with the end of what it said."""
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=seconds, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(command)} took longer than {seconds:g} s") from error
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise CommandFailed(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


@contextmanager
def engine() -> Iterator[Engine]:
    """Give an engine, and end it if it was started here. Raises NoEngine."""
    if shutil.which("docker") is None:
        raise NoEngine("the command docker is not installed")
    named = os.environ.get("DOCKER_HOST", _DEFAULT_SOCKET)
    found = Engine(socket=Path(named.removeprefix("unix://")), started=False)
    if named.startswith("unix://") and _answers(found):
        yield found
        return
    if "DOCKER_HOST" in os.environ:
        raise NoEngine(f"nothing answers at {named}: the trial needs an engine behind a socket of this machine")
    if os.geteuid() != 0:
        raise NoEngine("no engine answers, and only root may start one")
    if shutil.which("dockerd", path=_search_path()) is None:
        raise NoEngine("dockerd is not installed: apt-get install docker.io")
    with _own_engine() as started:
        yield started


@contextmanager
def _own_engine() -> Iterator[Engine]:
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="taskplatform-engine-", dir="/var/tmp"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        cleanup.callback(_unmount_below, folder)
        cleanup.callback(_restore_firewall, _firewall())
        cleanup.callback(_FORWARDING.write_text, _FORWARDING.read_text())
        started = Engine(socket=folder / "docker.sock", started=True)
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(
                [
                    *("dockerd", "--host", f"unix://{started.socket}", "--bridge", "none"),
                    *("--data-root", str(folder / "data"), "--exec-root", str(folder / "run")),
                    *("--pidfile", str(folder / "pid")),
                ],
                env={**os.environ, "PATH": _search_path()},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        cleanup.callback(_end, daemon)
        _await_answer(started, daemon, folder / "log")
        yield started


def _await_answer(engine: Engine, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(engine):
        if daemon.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise NoEngine(f"dockerd does not start on this machine:\n{last}")
        time.sleep(0.2)


def _answers(engine: Engine) -> bool:
    try:
        return bool(engine.docker("version", "--format", "{{.Server.Version}}", seconds=20.0))
    except CommandFailed:
        return False


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _unmount_below(folder: Path) -> None:
    # The engine leaves the namespace of the host's network mounted.
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if (place := line.split()[1]).startswith(f"{folder}/"):
            subprocess.run(["umount", place], check=False, timeout=30.0)


def _search_path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _firewall() -> str:
    saved = run(["iptables-save"], {"PATH": _search_path()}, seconds=30.0)
    for table, chains in _TABLES.items():
        if f"*{table}\n" not in saved:
            # A table that is not there yet: restoring it empty takes the engine's rules away.
            saved += "\n".join([f"*{table}", *(f":{chain} ACCEPT [0:0]" for chain in chains), "COMMIT", ""])
    return saved


def _restore_firewall(rules: str) -> None:
    subprocess.run(
        ["iptables-restore"], input=rules, text=True, env={"PATH": _search_path()}, check=False, timeout=30.0
    )
