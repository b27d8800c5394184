"""A real Alertmanager on loopback over the configuration of this checkout, and who hears of its alerts."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from taskplatform.servers import Command, Process, free_ports
from taskplatform.servers.configuration import CLEAN_ENVIRONMENT
from tests.observability.prometheus import CONFIG, program

RECEIVER = "http://alert-receiver:8080"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An alert as a receiver was told of it: at which path, which one, and whether it fires or is resolved."""

    path: str
    name: str
    status: str
    runbook: str = field(compare=False, default="")


class Receiver:
    """Takes what Alertmanager's webhooks send; a context manager."""

    def __init__(self) -> None:
        self._heard: list[Heard] = []
        heard = self._heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                heard.extend(_heard(self.path, alert) for alert in told["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def heard(self) -> list[Heard]:
        """Give everything so far, in order."""
        return list(self._heard)


class Alertmanager:
    """Tells `receiver` within seconds; a context manager."""

    def __init__(self, folder: Path, receiver: str) -> None:
        self._file = folder / "alertmanager.yml"
        self._receiver = receiver
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.process = Process(
            Command(
                name="Alertmanager",
                argv=(
                    program("prometheus-alertmanager"),
                    f"--config.file={self._file}",
                    f"--storage.path={folder}/data",
                    f"--web.listen-address={self.address}",
                    # Without it, it looks for others like it.
                    "--cluster.listen-address=",
                ),
                log=folder / "alertmanager.log",
                env=CLEAN_ENVIRONMENT,
            )
        )

    def __enter__(self) -> Self:
        self._file.parent.mkdir(parents=True)
        written = (CONFIG / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
        written = re.sub(r"(group_wait|group_interval): \d+[sm]", r"\1: 1s", written).replace(RECEIVER, self._receiver)
        self._file.write_text(written, encoding="utf-8")
        self.process.start(self._ready, within_seconds=60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def _ready(self) -> bool:
        try:
            return httpx2.get(f"http://{self.address}/-/ready", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False


def _heard(path: str, alert: dict[str, Any]) -> Heard:
    return Heard(
        path=path,
        name=alert["labels"]["alertname"],
        status=alert["status"],
        runbook=alert["annotations"]["runbook"],
    )
