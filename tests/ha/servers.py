"""The servers of a highly available platform: a Postgres cluster, a RabbitMQ cluster and Redis, started together."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from taskplatform.servers import Postgres, PostgresCluster, RabbitMQCluster, Redis, free_ports
from tests.native.servers import Home, count_messages


@dataclass(frozen=True, slots=True, kw_only=True)
class HaServers:
    """Running servers of which each may be killed or frozen, and a folder for whatever else a run writes."""

    folder: Path
    postgres: PostgresCluster
    rabbitmq: RabbitMQCluster
    redis: Redis
    second_postgres: Postgres
    """Without standbys, and not started: for runs whose shards are spread over two clusters."""

    def new_home(self) -> Home:
        """Make an empty virtual host and an empty database, each reached by the addresses of all members."""
        name = f"ha_{uuid4().hex[:12]}"
        return Home(
            name=name,
            broker_url=self.rabbitmq.add_vhost(name),
            database_url=self.postgres.create_database(name),
            # Whoever is the primary counts as a replica that is away.
            replica_urls=";".join(self.postgres.member_dsns(name)),
        )

    def drop_home(self, home: Home) -> None:
        """Delete both with all that is in them."""
        self.rabbitmq.delete_vhost(home.name)
        self.postgres.drop_database(home.name)

    def messages(self, home: Home) -> int:
        """Count the messages in all queues, those out with a worker too; the broker's figure is a few seconds old."""
        return count_messages(self.rabbitmq.living(), home)

    def await_whole(self, within_seconds: float = 120.0) -> None:
        """Return when every server runs and follows; raise ServerError."""
        self.postgres.await_healthy(within_seconds)
        self.rabbitmq.await_whole(within_seconds)


@contextmanager
def ha_servers(place: Path | None = None) -> Iterator[HaServers]:
    """Start all servers at once, each on ports of its own, and leave nothing behind. Raises ServerError.

    Their data goes to a new folder in `place`, or else where temporary files go.
    """
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="taskplatform-ha-", dir=place))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        # Postgres does not run as root, so another account has to pass through.
        folder.chmod(0o711)
        servers = HaServers(
            folder=folder,
            postgres=PostgresCluster(folder / "postgres"),
            rabbitmq=RabbitMQCluster(folder / "rabbitmq"),
            redis=Redis(folder / "redis", free_ports(1)[0], cache=True),
            second_postgres=Postgres(folder / "second-postgres", free_ports(1)[0]),
        )
        cleanup.callback(servers.redis.process.kill)
        servers.redis.start()
        # Nobody needs this data again: no time is spent on a clean shutdown.
        cleanup.callback(servers.rabbitmq.kill)
        servers.rabbitmq.begin()
        cleanup.callback(servers.postgres.kill)
        servers.postgres.begin()
        servers.await_whole()
        yield servers
