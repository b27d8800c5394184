"""Real servers as ordinary processes of ours: for tests, for benchmarks and for running everything on one machine."""

from taskplatform.servers.errors import ServerError, ServerMissing
from taskplatform.servers.etcd import Etcd
from taskplatform.servers.haproxy import HAProxy
from taskplatform.servers.lifetime import started
from taskplatform.servers.nginx import Nginx
from taskplatform.servers.patroni import PatroniMember
from taskplatform.servers.ports import free_ports, hold_port
from taskplatform.servers.postgres import Postgres
from taskplatform.servers.postgres_cluster import PostgresCluster
from taskplatform.servers.process import Command, Process
from taskplatform.servers.rabbitmq import RabbitMQ, RabbitPorts
from taskplatform.servers.rabbitmq_cluster import RabbitMQCluster
from taskplatform.servers.redis import Redis, find_redis
from taskplatform.servers.sources import Source

__all__ = [
    "Command",
    "Etcd",
    "HAProxy",
    "Nginx",
    "PatroniMember",
    "Postgres",
    "PostgresCluster",
    "Process",
    "RabbitMQ",
    "RabbitMQCluster",
    "RabbitPorts",
    "Redis",
    "ServerError",
    "ServerMissing",
    "Source",
    "find_redis",
    "free_ports",
    "hold_port",
    "started",
]
