"""One RabbitMQ and one Postgres that a native stack runs on: a test run's own, or private ones started for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote
from uuid import uuid4

from taskplatform.servers import Postgres, RabbitMQ, RabbitPorts, free_ports, started
from tests.native.accounting import Usage, usage_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What one platform, or one peer, gets of the servers: a virtual host and a database of its own."""

    name: str
    broker_url: str
    database_url: str
    replica_urls: str = ""


class Place(Protocol):
    """What a stack stands on: running servers, and a folder for whatever else a run writes."""

    @property
    def folder(self) -> Path:
        """Where logs and the like go."""

    def new_home(self) -> Home:
        """Make an empty virtual host and an empty database."""

    def drop_home(self, home: Home) -> None:
        """Delete both with all that is in them."""

    def messages(self, home: Home) -> int:
        """Count the messages in all queues, those out with a worker too; the figure may be a few seconds old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Two running servers, and a folder for whatever else a run writes."""

    folder: Path
    postgres: Postgres
    rabbitmq: RabbitMQ

    def new_home(self) -> Home:
        """Make an empty virtual host and an empty database."""
        name = f"native_{uuid4().hex[:12]}"
        return Home(
            name=name, broker_url=self.rabbitmq.add_vhost(name), database_url=self.postgres.create_database(name)
        )

    def drop_home(self, home: Home) -> None:
        """Delete both with all that is in them."""
        self.rabbitmq.delete_vhost(home.name)
        self.postgres.drop_database(home.name)

    def messages(self, home: Home) -> int:
        """Count the messages in all queues, those out with a worker too; the broker's figure is a few seconds old."""
        return count_messages(self.rabbitmq, home)

    def usage(self) -> Usage:
        """Give what both servers have used, every session of Postgres included."""
        return usage_of([self.postgres.process.pid, self.rabbitmq.process.pid])


def count_messages(node: RabbitMQ, home: Home) -> int:
    """Ask a node for the messages in all queues of a virtual host."""
    queues = node.manage("GET", f"queues/{quote(home.name, safe='')}")
    return sum(queue.get("messages", 0) for queue in queues) if isinstance(queues, list) else 0


@contextmanager
def private_servers() -> Iterator[Servers]:
    """Start servers on private ports in a folder of their own, and leave nothing behind."""
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="taskplatform-native-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        # Postgres does not run as root, so another account has to pass through.
        folder.chmod(0o711)
        postgres = cleanup.enter_context(started(Postgres(folder / "postgres", free_ports(1)[0])))
        rabbitmq = cleanup.enter_context(started(RabbitMQ(folder / "rabbitmq", RabbitPorts.free())))
        yield Servers(folder=folder, postgres=postgres, rabbitmq=rabbitmq)
