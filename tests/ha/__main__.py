"""`make ha-up`: runs the highly available platform on this machine until it is told to stop, and says where."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from taskplatform.servers import Process, ServerError
from taskplatform.settings import environment_of
from tests.ha.interrupts import end_in_order
from tests.ha.servers import HaServers, ha_servers
from tests.ha.stack import HaStack

_LOOK_SECONDS = 0.5
_EXAMPLES = "examples.photos,examples.tables,examples.documents,examples.chaos"


def main() -> int:
    """Run until SIGINT, SIGTERM or SIGHUP; gives the exit status."""
    end_in_order()
    began = time.monotonic()
    tasks = os.environ.get("TASKPLATFORM_TASK_MODULES", _EXAMPLES)
    _say("Starting three RabbitMQ nodes, three Postgres members under Patroni, etcd, Redis and the platform on them")
    try:
        with ha_servers() as servers, _platform(servers, tasks) as stack:
            for line in _table(servers, stack):
                _say(line)
            _say(f"Ready after {time.monotonic() - began:.0f} s. Kill what you like: what has died is started again.")
            with suppress(KeyboardInterrupt):
                while True:
                    time.sleep(_LOOK_SECONDS)
                    _revive(servers, stack)
            _say("Stopping; the data goes")
    except KeyboardInterrupt:
        return 130
    except ServerError as error:
        sys.stderr.write(f"ha-up: {error}\n")
        return 1
    return 0


def _platform(servers: HaServers, tasks: str) -> HaStack:
    wanted = {"task_modules": tasks, "cache_url": servers.redis.url(), "api_drain_seconds": 2.0}
    return HaStack(servers, wanted)


def _table(servers: HaServers, stack: HaStack) -> list[str]:
    roles = servers.postgres.roles()
    environment = servers.folder / "environment"
    environment.touch(mode=0o600)
    environment.write_text(_exports(stack))
    process = {part.command.name.removeprefix("the "): part for part in stack.parts}
    lines = [f"HAProxy      {stack.settings.api_url}  (its own page: http://127.0.0.1:{stack.balancer.stats_port}/)"]
    lines += [f"{name:12} process {part.process.pid}, port {part.health_port}" for name, part in process.items()]
    lines += [
        f"Postgres     {member.name} on 127.0.0.1:{member.port}, process {member.postmaster()}, {roles[member.name]}; "
        f"Patroni: process {member.process.pid}, http://127.0.0.1:{member.rest_port}/cluster"
        for member in servers.postgres.members
    ]
    lines.append(f"etcd         127.0.0.1:{servers.postgres.etcd.port}, process {servers.postgres.etcd.process.pid}")
    lines += [
        f"RabbitMQ     {node.node} on 127.0.0.1:{node.ports.amqp}, process {node.process.pid}, {node.management_url}"
        for node in servers.rabbitmq.nodes
    ]
    lines.append(f"Redis, cache 127.0.0.1:{servers.redis.port}, process {servers.redis.process.pid}")
    shown = Path(sys.executable).with_name("taskplatform")
    return [
        *lines,
        f"Logs         {servers.folder}",
        "",
        f"  . {environment}",
        f"  {shown} submit documents.terms title=assert --wait",
        "",
    ]


def _exports(stack: HaStack) -> str:
    values = {**environment_of(stack.settings), "TASKPLATFORM_API_KEY": stack.key}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _revive(servers: HaServers, stack: HaStack) -> None:
    kept: list[tuple[Process, Callable[[], None]]] = [(part.process, part.start) for part in stack.parts]
    kept += [(member.process, member.begin) for member in servers.postgres.members]
    kept += [(node.process, node.begin) for node in servers.rabbitmq.nodes]
    kept += [(one.process, one.start) for one in (stack.balancer, servers.postgres.etcd, servers.redis)]
    for process, start in kept:
        if not process.alive:
            process.kill()
            start()
            _say(f"{process.command.name} had died and was started again: process {process.pid}")


def _say(line: str) -> None:
    # Whoever read this may have gone; the platform goes on.
    with suppress(OSError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
