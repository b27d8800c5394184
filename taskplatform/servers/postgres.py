"""One Postgres server on loopback, from Debian's packages or from a wheel, as root or as anybody else."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

from taskplatform.servers.accounts import Account
from taskplatform.servers.configuration import CLEAN_ENVIRONMENT, shared_settings
from taskplatform.servers.errors import ServerError
from taskplatform.servers.postgres_programs import Programs
from taskplatform.servers.process import Command, Process
from taskplatform.servers.sources import Source

_COMMAND_SECONDS = 120.0


class Postgres:
    """A Postgres cluster in a folder, and the server process on it.

    The superuser is `postgres`. With `password` connections need one, which is made once and kept beside the data;
    without, everybody on 127.0.0.1 is let in. Settings go over those of `config/postgres/postgresql.conf`.
    As root the server runs as user postgres, or nobody. When that user cannot enter `data_dir`, the data is kept in a
    new folder below /var/lib, to which `data_dir/elsewhere` points.
    One that `follows` another server, which has to run when it is first started, is a standby of it.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int,
        *,
        bin_dir: Path | None = None,
        prefer: Source = Source.SYSTEM,
        settings: Mapping[str, str] | None = None,
        password: bool = False,
        follows: Postgres | None = None,
    ) -> None:
        self.port = port
        self._account = Account.unprivileged("postgres")
        self._programs = Programs.find(prefer) if bin_dir is None else Programs(bin_dir=bin_dir)
        self._settings = dict(settings or {})
        self._with_password = password
        self._follows = follows
        self._data_dir = data_dir.absolute()
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The server process, to look at or to do harm to; raises ServerError before the first start."""
        if self._process is None:
            raise ServerError(f"Postgres on port {self.port} was never started")
        return self._process

    @property
    def home(self) -> Path:
        """The folder that really holds the data."""
        elsewhere = self._data_dir / "elsewhere"
        return elsewhere.readlink() if elsewhere.is_dir() else self._data_dir

    def start(self) -> None:
        """Make the cluster unless it is there, start the server, and return when it takes connections.

        Data that a killed server left is recovered. Raises ServerError with the end of the log.
        """
        home = self._prepare_home()
        cluster = home / "cluster"
        self._programs = self._programs.readable_by(self._account, home)
        if not (cluster / "PG_VERSION").exists():
            # What is there without a version file is the rest of an attempt that was cut short.
            shutil.rmtree(cluster, ignore_errors=True)
            if self._follows is None:
                self._initialise(home, cluster)
            else:
                self._copy(self._follows, home, cluster)
        self._configure(cluster)
        _forget_dead_owner(cluster)
        self._process = Process(
            Command(
                name=f"Postgres on port {self.port}",
                argv=(self._programs.path("postgres"), "-D", str(cluster)),
                log=home / "server.log",
                env={"HOME": str(home)},
                account=self._account,
                stop_signal=signal.SIGINT,
            )
        )
        self._process.start(self._answers)

    def stop(self) -> None:
        """End sessions and shut down cleanly."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """Kill the server and all its sessions at once; `start` recovers the data."""
        self.process.kill()

    def restart(self) -> None:
        """Stop and start again, on the same port and data."""
        self.stop()
        self.start()

    def discard_data(self) -> None:
        """Remove the cluster, wherever it is kept; the server must not run. What is not there is no error."""
        shutil.rmtree(self.home, ignore_errors=True)
        (self._data_dir / "elsewhere").unlink(missing_ok=True)

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the libpq URI of a database of this server."""
        secret = f":{self._password()}" if self._with_password else ""
        return f"postgresql://postgres{secret}@127.0.0.1:{self.port}/{dbname}"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if given, and return its DSN; raise ServerError if it exists.

        Nobody may be connected to the template.
        """
        self.execute('CREATE DATABASE :"name" TEMPLATE :"template"', name=name, template=template or "template0")
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and whoever is connected to it; one that does not exist is no error."""
        self.execute('DROP DATABASE IF EXISTS :"name" WITH (FORCE)', name=name)

    def execute(self, statement: str, dbname: str = "postgres", **variables: str) -> str:
        """Run one statement by psql, with its `:variables`, and return the rows as plain text; raise ServerError."""
        given = [f"--set={name}={value}" for name, value in variables.items()]
        place = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", dbname)
        return self._run("psql", "-XqAt", "--set=ON_ERROR_STOP=1", *given, *place, statement=statement).strip()

    @staticmethod
    def installed_version(prefer: Source = Source.SYSTEM) -> str:
        """Return what the release that would be used calls itself; raise ServerMissing when there is none."""
        return Programs.find(prefer).version()

    def _prepare_home(self) -> Path:
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._account is None:
            return self._data_dir
        elsewhere = self._data_dir / "elsewhere"
        if not self._account.enters(self._data_dir.parent) and not elsewhere.is_dir():
            elsewhere.unlink(missing_ok=True)
            elsewhere.symlink_to(mkdtemp(prefix="taskplatform-postgres-", dir="/var/lib"))
        self._account.own(self.home)
        return self.home

    def _initialise(self, home: Path, cluster: Path) -> None:
        secret = home / "password"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(24))
        if self._account is not None:
            self._account.own(secret)
        locale = ("--encoding=UTF8", "--locale=C", "--data-checksums")
        self._make(
            home, "initdb", "-D", str(cluster), "-U", "postgres", *locale, f"--pwfile={secret}", "--auth=scram-sha-256"
        )

    def _copy(self, primary: Postgres, home: Path, cluster: Path) -> None:
        how = ("--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf")
        self._make(home, "pg_basebackup", "-D", str(cluster), "-d", primary.dsn(), *how)

    def _make(self, home: Path, program: str, *arguments: str) -> None:
        process = Process(
            Command(
                name=program,
                argv=(self._programs.path(program), *arguments),
                log=home / f"{program}.log",
                env={"HOME": str(home)},
                account=self._account,
            )
        )
        process.start()
        status = process.wait(_COMMAND_SECONDS)
        process.kill()
        if status != 0:
            raise ServerError(f"{program} ended with status {status}: {process.log_tail()}")

    def _configure(self, cluster: Path) -> None:
        own = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **self._settings,
        }
        method = "scram-sha-256" if self._with_password else "trust"
        lines = [f"{name} = '{value}'" for name, value in own.items()]
        self._write(cluster / "postgresql.conf", "\n".join([shared_settings("postgres/postgresql.conf"), *lines, ""]))
        self._write(
            cluster / "pg_hba.conf",
            f"host all all 127.0.0.1/32 {method}\nhost replication all 127.0.0.1/32 {method}\n",
        )

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        if self._account is not None:
            self._account.own(path)

    def _password(self) -> str:
        return (self.home / "password").read_text()

    def _answers(self) -> bool:
        with contextlib.suppress(ServerError):
            self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
            return True
        return False

    def _run(self, program: str, *arguments: str, statement: str = "") -> str:
        done = subprocess.run(
            [self._programs.path(program), *arguments],
            input=statement,
            # Not in the arguments, which every user of the machine can read.
            env={**CLEAN_ENVIRONMENT, "PGPASSWORD": self._password() if self._with_password else ""},
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"{program} on port {self.port}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def _forget_dead_owner(cluster: Path) -> None:
    # A server that was killed leaves its process id; when some other process has that id by now, Postgres would
    # believe that it still runs and refuse to start.
    lock = cluster / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError):
        pid = lock.read_text().split("\n", 1)[0]
        owner = Path("/proc", pid, "cmdline")
        if owner.exists() and str(cluster).encode() in owner.read_bytes():
            raise ServerError(f"a Postgres with process id {pid} already runs on {cluster}")
        lock.unlink()
