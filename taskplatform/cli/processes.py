"""Commands that are processes of the platform, and those that prepare them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskplatform.cli.output import AsJson, say, show_fields, show_json

if TYPE_CHECKING:
    from taskplatform.settings import Settings
    from taskplatform.task import TaskSpec


def up() -> None:
    """Run the whole platform on this machine until Ctrl-C: real Postgres and Valkey, API, worker, dispatcher."""
    from taskplatform.embedded import run
    from taskplatform.settings import load

    raise typer.Exit(run(load()))


def init() -> None:
    """Prepare database and broker: migrate the tables, declare the queues, announce the tasks. May be run again."""
    from taskplatform.settings import load
    from taskplatform.store.postgres.migrate import migrate

    settings = load()
    specs = own_tasks(settings)
    dsns = settings.cluster_dsns()
    for dsn in dsns:
        migrate(dsn)
    say("The tables are up to date")
    if len(dsns) > 1:
        _place(dsns)
    asyncio.run(_prepare(settings, specs))
    say(f"The queues of {', '.join(settings.pools)} are declared, {len(specs)} tasks announced")


def api() -> None:
    """Run the HTTP API until it is told to stop."""
    _become("api")


def worker() -> None:
    """Run a worker of one pool until it is told to stop."""
    _become("workers")


def flower() -> None:
    """Run Flower, the live view of workers and their latest jobs, until it is told to stop."""
    _become("workers.flower")


def dispatcher() -> None:
    """Run the dispatcher with all its roles until it is told to stop; any number may run."""
    from taskplatform.background import run_dispatcher
    from taskplatform.errors import SettingsError
    from taskplatform.settings import load

    settings = load()
    try:
        asyncio.run(run_dispatcher(settings))
    except OSError as error:
        raise SettingsError(f"the metrics port {settings.metrics_port} cannot be used: {error.strerror}") from None


def exporter() -> None:
    """Run the exporter: what only database and broker know, for Prometheus, and canaries where they are wanted."""
    from taskplatform.errors import SettingsError
    from taskplatform.exporter import run_exporter
    from taskplatform.settings import load

    settings = load()
    try:
        asyncio.run(run_exporter(settings))
    except OSError as error:
        raise SettingsError(f"the metrics port {settings.metrics_port} cannot be used: {error.strerror}") from None


def autoscaler() -> None:
    """Let the number of workers follow the work until it is told to stop; of several one is active."""
    from taskplatform.autoscaling import run_autoscaler
    from taskplatform.errors import SettingsError
    from taskplatform.settings import load

    settings = load()
    try:
        asyncio.run(run_autoscaler(settings))
    except OSError as error:
        raise SettingsError(f"the metrics port {settings.metrics_port} cannot be used: {error.strerror}") from None


def scaler_agent(
    *,
    project: Annotated[str, typer.Option(help="The Compose project whose workers are scaled.")] = "taskplatform",
    docker_socket: Annotated[str, typer.Option(help="The engine's socket.")] = "/var/run/docker.sock",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=0, max=65535)] = 9010,
) -> None:
    """Hold the Docker socket for the autoscaler: list, start and stop containers of workers, and nothing else."""
    from taskplatform.autoscaling import run_agent
    from taskplatform.errors import SettingsError
    from taskplatform.settings import load

    try:
        run_agent(load(), project=project, docker_socket=docker_socket, host=host, port=port)
    except OSError as error:
        raise SettingsError(f"the agent cannot listen on {host}:{port}: {error.strerror}") from None


def version(*, as_json: AsJson = False) -> None:
    """Print the versions of taskplatform and of what it stands on."""
    names = ("taskplatform", "celery", "kombu", "psycopg", "fastapi", "msgspec", "httpx2")
    found = {"python": sys.version.partition(" ")[0]} | {name: _version(name) for name in names}
    if as_json:
        show_json(found)
    else:
        show_fields(found.items())


def own_tasks(settings: Settings) -> list[TaskSpec]:
    """Give what the tasks of the settings' modules announce. Raises SettingsError for one that cannot be imported."""
    from taskplatform.task import load_tasks

    _find_modules_here()
    return [task.spec for task in load_tasks(settings.task_modules).values()]


def _place(dsns: Sequence[str]) -> None:
    from taskplatform.store.postgres.placing import ensure_map

    made = ensure_map(dsns)
    say(f"Shard map {made.version} is known to {len(dsns)} clusters")
    for number in range(len(dsns)):
        if not made.shards_of(number):
            say(f"Cluster {number} is the home of no shard yet: `taskplatform shards move` gives it some")


def _become(module: str) -> None:
    from taskplatform.errors import SettingsError
    from taskplatform.settings import load

    # Read here too, so that a bad setting is one line.
    load()
    _find_modules_here()
    package = module.partition(".")[0]
    if find_spec(package) is None:
        raise SettingsError(f"the package {package} is not here: run this in a checkout or in the image")
    os.execv(sys.executable, [sys.executable, "-m", module])


def _find_modules_here() -> None:
    # A console script does not look for modules in the working directory, `python -m` does.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


async def _prepare(settings: Settings, specs: Sequence[TaskSpec]) -> None:
    from taskplatform.wiring import new_broker, new_store

    store, broker = new_store(settings), new_broker(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        stack.push_async_callback(broker.stop)
        await store.announce(specs)
        await broker.start()
        await broker.declare(settings.pools)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
