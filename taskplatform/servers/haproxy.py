"""One HAProxy on loopback, the load balancer before the API processes."""

from __future__ import annotations

import shutil
from pathlib import Path

from taskplatform.servers.configuration import shared_path
from taskplatform.servers.errors import ServerMissing
from taskplatform.servers.ports import free_ports, listens
from taskplatform.servers.process import Command, Process


class HAProxy:
    """Listens on `port` and passes requests on to the two API processes on these ports of 127.0.0.1.

    Raises ServerMissing when no HAProxy is installed.
    """

    def __init__(self, folder: Path, api_ports: tuple[int, int], port: int | None = None) -> None:
        program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            raise ServerMissing("no HAProxy is installed")
        found, self.stats_port = free_ports(2)
        self.port = port or found
        self.process = Process(
            Command(
                name=f"HAProxy on port {self.port}",
                argv=(program, "-db", "-f", str(shared_path("haproxy/haproxy.cfg"))),
                log=folder / "haproxy.log",
                env={
                    "HAPROXY_API": f"127.0.0.1:{self.port}",
                    "HAPROXY_STATS": f"127.0.0.1:{self.stats_port}",
                    "API_1": f"127.0.0.1:{api_ports[0]}",
                    "API_2": f"127.0.0.1:{api_ports[1]}",
                },
            )
        )

    def start(self) -> None:
        """Start it, and return when it listens; raise ServerError."""
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """End it, and every connection over it."""
        self.process.stop()
