"""Three RabbitMQ nodes on loopback that form one cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from taskplatform.servers.errors import ServerError
from taskplatform.servers.rabbitmq import RabbitMQ, RabbitPorts

NODES = 3
_START_SECONDS = 180.0
_POLL_SECONDS = 0.2


class RabbitMQCluster:
    """Three nodes that share `state_dir`. Raises ServerMissing when no RabbitMQ is installed."""

    def __init__(self, state_dir: Path) -> None:
        first = RabbitPorts.free()
        ports = (first, *(RabbitPorts.free(epmd=first.epmd) for _ in range(NODES - 1)))
        members = tuple(range(1, NODES + 1))
        self.nodes = tuple(
            RabbitMQ(state_dir, port, index=index, members=members) for index, port in zip(members, ports, strict=True)
        )

    def start(self) -> None:
        """Start all nodes at once, and return when each speaks AMQP and knows the others; raise ServerError."""
        self.begin()
        try:
            self.await_whole()
        except BaseException:
            self.kill()
            raise

    def begin(self) -> None:
        """Start all nodes without waiting."""
        for node in self.nodes:
            node.begin()

    def await_whole(self, within_seconds: float = _START_SECONDS) -> None:
        """Return when every node speaks AMQP and counts as running; raise ServerError."""
        deadline = time.monotonic() + within_seconds
        for node in self.nodes:
            node.await_ready(within_seconds=max(deadline - time.monotonic(), 1.0))
        while len(self.running()) < NODES:
            if time.monotonic() > deadline:
                raise ServerError(f"the RabbitMQ cluster is not whole after {within_seconds:g} s: {self.running()}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Shut all nodes down cleanly, the first, which started epmd, last."""
        for node in reversed(self.nodes):
            node.stop()

    def kill(self) -> None:
        """Kill all nodes at once, and their epmd."""
        for node in self.nodes:
            node.kill()
        self.stop()

    def running(self) -> list[str]:
        """Name the nodes that the cluster counts as running, as one that answers sees it; raise ServerError."""
        return [str(node["name"]) for node in self._ask("nodes") if node.get("running")]

    def leader(self, vhost: str, queue: str) -> RabbitMQ:
        """Give the node that leads a quorum queue; raise ServerError when nobody does."""
        found = self._queue(vhost, queue)
        name = found.get("leader")
        for node in self.nodes:
            if node.node == name:
                return node
        raise ServerError(f"the queue {queue} has no leader: {found}")

    def members(self, vhost: str, queue: str) -> list[str]:
        """Name the nodes that keep a copy of a quorum queue; raise ServerError."""
        return sorted(self._queue(vhost, queue).get("members", ()))

    def add_vhost(self, name: str) -> str:
        """Create a virtual host, and return the AMQP URLs of all nodes with a semicolon between them."""
        return ";".join([self.living().add_vhost(name), *self._other_urls(name)])

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; raise ServerError."""
        self.living().delete_vhost(name)

    def living(self) -> RabbitMQ:
        """Give a node whose process lives; raise ServerError when none does."""
        for node in self.nodes:
            if node.process.alive:
                return node
        raise ServerError("no node of the RabbitMQ cluster runs")

    def _other_urls(self, vhost: str) -> list[str]:
        first = self.living()
        return [node.amqp_url(vhost) for node in self.nodes if node is not first]

    def _queue(self, vhost: str, queue: str) -> dict[str, Any]:
        found = self.living().manage("GET", f"queues/{quote(vhost, safe='')}/{quote(queue, safe='')}")
        return found if isinstance(found, dict) else {}

    def _ask(self, path: str) -> list[dict[str, Any]]:
        found = self.living().manage("GET", path)
        return found if isinstance(found, list) else []
