"""A Postgres primary with two synchronous standbys and automatic failover: Patroni and etcd on loopback."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from taskplatform.servers.accounts import Account
from taskplatform.servers.configuration import CLEAN_ENVIRONMENT
from taskplatform.servers.errors import ServerError
from taskplatform.servers.etcd import Etcd
from taskplatform.servers.packages import copy_packages
from taskplatform.servers.patroni import PatroniMember, Shared
from taskplatform.servers.postgres_programs import Programs
from taskplatform.servers.sources import Source

MEMBERS = 3
_LEASE = "/service/taskplatform/leader"
"""Where Patroni keeps it: its own prefix, and the `scope` of `config/patroni/patroni.yml`."""
_START_SECONDS = 120.0
_COMMAND_SECONDS = 120.0
_POLL_SECONDS = 0.1


class PostgresCluster:
    """Three members in `folder`, which the account of Postgres must be able to enter, and one etcd.

    Settings go over those of `config/postgres/postgresql.conf`. The superuser is `postgres`, with a password made here.
    Raises ServerMissing when a program is not installed.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._folder = folder.absolute()
        self._account = Account.unprivileged("postgres")
        self._programs = Programs.find(Source.SYSTEM)
        self._password = secrets.token_urlsafe(24)
        self.etcd = Etcd(self._folder / "etcd")
        shared = Shared(
            account=self._account,
            programs=self._programs,
            software=self._folder / "patroni-software",
            etcd_port=self.etcd.port,
            passwords={
                "SUPERUSER": self._password,
                "REPLICATION": secrets.token_urlsafe(24),
                "REWIND": secrets.token_urlsafe(24),
            },
        )
        self.members = tuple(
            PatroniMember(self._folder / f"pg-{number}", f"pg-{number}", shared, settings or {})
            for number in range(1, MEMBERS + 1)
        )

    def start(self) -> None:
        """Start everything, and return when the primary takes commits that both standbys follow."""
        self.begin()
        try:
            self.await_healthy(within_seconds=_START_SECONDS)
        except BaseException:
            self.kill()
            raise

    def begin(self) -> None:
        """Start everything without waiting for the members."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        software = self._folder / "patroni-software"
        if not software.exists():
            copy_packages(["patroni[etcd3]", "psycopg"], software)
        self.etcd.start()
        try:
            for member in self.members:
                member.begin()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut everything down cleanly, the primary last, so that nobody takes over from it."""
        primary = self.primary()
        for member in sorted(self.members, key=lambda member: member is primary):
            member.stop()
        self.etcd.stop()

    def kill(self) -> None:
        """Kill everything at once: for data that nobody needs again."""
        for member in self.members:
            member.kill()
        self.etcd.kill()

    def primary(self) -> PatroniMember | None:
        """Give the member that says that it is the primary; None while there is none."""
        return next((member for member in self.members if member.is_primary()), None)

    def standby(self) -> PatroniMember:
        """Give one of the others; raise ServerError when there is no primary."""
        primary = self.await_primary()
        return next(member for member in self.members if member is not primary)

    def await_primary(self, within_seconds: float = 60.0) -> PatroniMember:
        """Give the primary as soon as there is one; raise ServerError."""
        _await(lambda: self.primary() is not None, "there is no primary", within_seconds)
        return self.primary() or self.await_primary(within_seconds)

    def await_healthy(self, within_seconds: float = 60.0) -> None:
        """Return when there are a primary and two standbys that commits may count on; raise ServerError."""
        _await(self.healthy, f"the Postgres cluster is not whole: {self.roles()}", within_seconds)

    def healthy(self) -> bool:
        """Tell whether a primary and two synchronous standbys stream."""
        return sorted(self.roles().values()) == ["leader running", *["quorum_standby streaming"] * (MEMBERS - 1)]

    def roles(self) -> dict[str, str]:
        """Give the role and state of each member by its name, as the first Patroni that answers knows them."""
        for member in self.members:
            if found := member.cluster():
                return {str(one["name"]): f"{one['role']} {one['state']}" for one in found}
        return {}

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the libpq URI of a database, with every member as a host: the one that takes writes is used."""
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.members)
        return f"{self._uri(hosts, dbname)}?target_session_attrs=read-write&connect_timeout=3"

    def member_dsns(self, dbname: str) -> list[str]:
        """Return the libpq URI of a database on each member by itself, to read from."""
        return [self._uri(f"127.0.0.1:{member.port}", dbname) for member in self.members]

    def end_lease(self) -> None:
        """Take the lease from the primary, which must be off for certain: a standby takes over at once.

        One that still ran could answer commits that the standby has not seen. Raises ServerError.
        """
        self.etcd.delete(_LEASE)

    def create_database(self, name: str) -> str:
        """Create a database, and return its DSN; raise ServerError."""
        self.execute('CREATE DATABASE :"name"', name=name)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and whoever is connected to it; one that does not exist is no error."""
        self.execute('DROP DATABASE IF EXISTS :"name" WITH (FORCE)', name=name)

    def execute(self, statement: str, dbname: str = "postgres", **variables: str) -> str:
        """Run one statement on the primary by psql, with its `:variables`, and return the rows; raise ServerError."""
        done = subprocess.run(
            [
                *(self._programs.path("psql"), "-XqAt", "--set=ON_ERROR_STOP=1"),
                *(f"--set={name}={value}" for name, value in variables.items()),
            ],
            input=statement,
            env={**CLEAN_ENVIRONMENT, **self._variables(dbname)},
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"psql on the Postgres cluster: {done.stderr.strip()}")
        return done.stdout.strip()

    def discard_data(self) -> None:
        """Remove everything that the members kept; they must not run."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _uri(self, hosts: str, dbname: str) -> str:
        return f"postgresql://postgres:{self._password}@{hosts}/{dbname}"

    def _variables(self, dbname: str) -> dict[str, str]:
        # Not in the arguments, which every user of the machine can read.
        return {
            "PGHOST": ",".join("127.0.0.1" for _ in self.members),
            "PGPORT": ",".join(str(member.port) for member in self.members),
            "PGUSER": "postgres",
            "PGPASSWORD": self._password,
            "PGDATABASE": dbname,
            "PGTARGETSESSIONATTRS": "read-write",
            "PGCONNECT_TIMEOUT": "3",
        }


def _await(condition: Callable[[], bool], trouble: str, within_seconds: float) -> None:
    deadline = time.monotonic() + within_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"{trouble}, after {within_seconds:g} s")
        time.sleep(_POLL_SECONDS)
