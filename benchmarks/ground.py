"""The servers of a measurement: RabbitMQ, Postgres and Redis on private ports, shared by all sides in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from taskplatform.servers import Redis, free_ports, started
from tests.native.accounting import Usage, usage_of
from tests.native.servers import Servers, private_servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The servers, and a folder for whatever else a run writes."""

    servers: Servers
    redis: Redis

    @property
    def folder(self) -> Path:
        """Where logs and ledgers go."""
        return self.servers.folder

    def usage(self) -> Usage:
        """Give what the three servers have used."""
        return self.servers.usage() + usage_of([self.redis.process.pid])


@contextmanager
def with_redis(servers: Servers) -> Iterator[Ground]:
    """Add a Redis of our own to servers that run already."""
    (port,) = free_ports(1)
    with started(Redis(servers.folder / f"redis-{port}", port)) as redis:
        yield Ground(servers=servers, redis=redis)


@contextmanager
def private_ground() -> Iterator[Ground]:
    """Start all servers, and leave nothing behind."""
    with private_servers() as servers, with_redis(servers) as ground:
        yield ground
