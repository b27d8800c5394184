"""One nginx on loopback: the cache before the API, as a CDN would be."""

from __future__ import annotations

import shutil
from pathlib import Path

from taskplatform.servers.configuration import shared_settings
from taskplatform.servers.errors import ServerMissing
from taskplatform.servers.ports import free_ports, listens
from taskplatform.servers.process import Command, Process


class Nginx:
    """Listens on `port` and passes requests on to the API on another port of 127.0.0.1; what it keeps is in `folder`.

    Raises ServerMissing when no nginx is installed.
    """

    def __init__(self, folder: Path, api_port: int, port: int | None = None) -> None:
        program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            raise ServerMissing("no nginx is installed")
        self.port = port or free_ports(1)[0]
        self._folder = folder.absolute()
        self._api_port = api_port
        configuration = self._folder / "nginx.conf"
        self.process = Process(
            Command(
                name=f"nginx on port {self.port}",
                argv=(program, "-p", str(self._folder), "-c", str(configuration), "-e", "stderr"),
                log=self._folder / "nginx.log",
            )
        )

    def start(self) -> None:
        """Start it, and return when it listens; raise ServerError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        files = {
            "nginx.conf": shared_settings("nginx/nginx.conf"),
            "listen.conf": f"listen 127.0.0.1:{self.port};\n",
            "upstream.conf": f"server 127.0.0.1:{self._api_port} max_fails=0;\n",
        }
        for name, text in files.items():
            (self._folder / name).write_text(text, encoding="utf-8")
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """End it, and every connection over it."""
        self.process.stop()
