"""One member of a Postgres cluster: a Patroni on loopback, and the Postgres that it runs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from taskplatform.servers import trees
from taskplatform.servers.accounts import Account
from taskplatform.servers.configuration import shared_settings
from taskplatform.servers.errors import ServerMissing
from taskplatform.servers.ports import free_ports
from taskplatform.servers.postgres_programs import Programs
from taskplatform.servers.process import Command, Process

_SYSTEM_PYTHON = Path("/usr/bin/python3")
_HTTP_SECONDS = 2.0
_HTTP_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all members of a cluster have in common: programs, passwords, and where etcd is."""

    account: Account | None
    programs: Programs
    software: Path
    etcd_port: int
    passwords: Mapping[str, str]


class PatroniMember:
    """Patroni and its Postgres, with all their data in `home`, which the account of `shared` can enter."""

    def __init__(self, home: Path, name: str, shared: Shared, settings: Mapping[str, str]) -> None:
        self.name = name
        self.port, self.rest_port = free_ports(2)
        self._home = home
        self._data = home / "data"
        self._shared = shared
        self._settings = dict(settings)
        self.process = Process(
            Command(
                name=f"Patroni {name} with Postgres on port {self.port}",
                argv=(str(_interpreter(shared.account)), "-s", "-m", "patroni", str(home / "patroni")),
                log=home / "patroni.log",
                env={
                    "HOME": str(home),
                    "PYTHONPATH": str(shared.software),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    # Its C part fits one version of Python only.
                    "PSYCOPG_IMPL": "python",
                    **{f"PATRONI_{kind}_PASSWORD": secret for kind, secret in shared.passwords.items()},
                },
                account=shared.account,
            )
        )

    def begin(self) -> None:
        """Start Patroni without waiting; it starts or clones its Postgres as the cluster wants it."""
        for folder in (self._home, self._home / "patroni"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._own(folder)
        self._write("postgresql.conf", "\n".join([shared_settings("postgres/postgresql.conf"), *self._lines(), ""]))
        self._write("patroni/1-shared.yml", shared_settings("patroni/patroni.yml"))
        # JSON is YAML.
        self._write("patroni/2-own.yml", json.dumps(self._own_settings()))
        self.process.start()

    def stop(self) -> None:
        """Shut Postgres down cleanly, and Patroni; a standby takes over from a primary."""
        self.process.stop(within_seconds=30.0)
        self.kill()

    def kill(self) -> None:
        """Kill Patroni and Postgres at once, as if their machine were gone; `begin` brings the member back."""
        if self.process.alive:
            # Not to start another Postgres in between.
            self.process.freeze()
        self.kill_postgres()
        self.process.kill()

    def kill_postgres(self) -> None:
        """Kill Postgres and all its sessions at once; Patroni lives on."""
        if (pid := self.postmaster()) is not None:
            trees.kill(pid)

    def freeze(self) -> None:
        """Stop Patroni and Postgres in the middle of what they do; connections to them hang."""
        self.process.freeze()
        self.freeze_postgres()

    def freeze_postgres(self) -> None:
        """Stop Postgres alone in the middle of what it does."""
        if (pid := self.postmaster()) is not None:
            trees.freeze(pid)

    def thaw(self) -> None:
        """Let what is frozen go on."""
        if (pid := self.postmaster()) is not None:
            trees.thaw(pid)
        if self.process.alive:
            self.process.thaw()

    def postmaster(self) -> int | None:
        """Give the process id of the Postgres server; None when none runs on this member's data."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
            if str(self._data).encode() in Path("/proc", str(pid), "cmdline").read_bytes():
                return pid
        return None

    def is_primary(self) -> bool:
        """Tell whether this member says that it is the primary and holds the lease on it."""
        return self._ask("/primary")[0] == _HTTP_OK

    def cluster(self) -> list[Mapping[str, object]]:
        """Give what Patroni knows of every member: name, role, state, lag; empty when it does not answer."""
        answer = self._ask("/cluster")[1]
        return list(answer.get("members", ())) if isinstance(answer, dict) else []

    def _ask(self, path: str) -> tuple[int, object]:
        connection = HTTPConnection("127.0.0.1", self.rest_port, timeout=_HTTP_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, HTTPException, ValueError):
            return 0, None
        finally:
            connection.close()

    def _own_settings(self) -> dict[str, object]:
        rest, postgres = f"127.0.0.1:{self.rest_port}", f"127.0.0.1:{self.port}"
        return {
            "name": self.name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": f"127.0.0.1:{self._shared.etcd_port}"},
            "postgresql": {
                "listen": postgres,
                "connect_address": postgres,
                "data_dir": str(self._data),
                "bin_dir": str(self._shared.programs.bin_dir),
                "pgpass": str(self._home / "pgpass"),
                "custom_conf": str(self._home / "postgresql.conf"),
                "parameters": {"unix_socket_directories": ""},
            },
        }

    def _lines(self) -> list[str]:
        return [f"{name} = '{value}'" for name, value in self._settings.items()]

    def _write(self, name: str, text: str) -> None:
        path = self._home / name
        path.write_text(text, encoding="utf-8")
        self._own(path)

    def _own(self, path: Path) -> None:
        if self._shared.account is not None:
            self._shared.account.own(path)


def _interpreter(account: Account | None) -> Path:
    # Not the link in a virtual environment; and ours may be below the home of root.
    for path in (Path(sys.executable).resolve(), _SYSTEM_PYTHON):
        if path.exists() and (account is None or account.reads(path)):
            return path
    raise ServerMissing(f"the account of Postgres can run no Python: {_SYSTEM_PYTHON} is not there")
