"""A platform that is watched: native processes, an exporter, a Prometheus that scrapes all, and who hears of alerts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from taskplatform.client import Call, Client, call, named
from tests.fixtures.collector import Collector
from tests.native.part import Part
from tests.native.servers import Servers
from tests.native.stack import Stack
from tests.observability.alertmanager import Alertmanager, Receiver
from tests.observability.prometheus import Prometheus

SETTINGS = {
    "task_modules": "tests.observability.jobs",
    "worker_processes": 1,
    "exporter_seconds": 0.5,
    "canary_seconds": 2.0,
    "relay_after_seconds": 1.0,
    "stranded_after_seconds": 3.0,
    "lease_seconds": 4.0,
    "lease_renew_seconds": 1.0,
    "worker_drain_seconds": 1.0,
    "trace_ratio": 1.0,
    "autoscale_target_seconds": 1.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A platform and who watches it."""

    stack: Stack
    exporter: Part
    autoscaler: Part
    prometheus: Prometheus
    receiver: Receiver
    client: Client = field(repr=False)

    def submit(self, task: str, number: int, **options: Any) -> None:
        """Hand in jobs of one task."""
        self.client.submit_many([self.call(task, **options) for _ in range(number)])

    def call(self, task: str, **options: Any) -> Call[Any]:
        """Make a call of a task."""
        return call(named(task, **options))

    def rows(self, statement: str, *parameters: Any) -> list[Any]:
        """Look into the database, or change it as time would."""
        with psycopg.connect(self.stack.home.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str) -> float | None:
        """Give the one value of a query, None when there is none."""
        found = self.prometheus.ask(query)
        return found[0][1] if found else None


@pytest.fixture(scope="session")
def watched(servers: Servers, collector: Collector) -> Iterator[Watched]:
    """The watched platform of this run; a test that breaks something mends it."""
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="taskplatform-watched-")))
        stack = cleanup.enter_context(Stack(servers, {**SETTINGS, "trace_url": collector.url}, name="watched"))
        exporter, autoscaler = stack.new_exporter(), stack.new_autoscaler()
        for part in (exporter, autoscaler):
            cleanup.callback(part.stop)
            part.start()
        for part in (exporter, autoscaler):
            part.await_ready()
        targets: dict[str, Sequence[str]] = {
            "api": [f"127.0.0.1:{stack.settings.api_port}"],
            "worker": [f"127.0.0.1:{stack.worker.health_port}"],
            "dispatcher": [f"127.0.0.1:{stack.dispatcher.health_port}"],
            "autoscaler": [f"127.0.0.1:{autoscaler.health_port}"],
            "exporter": [f"127.0.0.1:{exporter.health_port}"],
            "rabbitmq": [f"127.0.0.1:{servers.rabbitmq.ports.prometheus}"],
        }
        receiver = cleanup.enter_context(Receiver())
        alertmanager = cleanup.enter_context(Alertmanager(folder / "alertmanager", receiver.url))
        prometheus = cleanup.enter_context(Prometheus(folder / "prometheus", targets, alertmanager.address))
        client = cleanup.enter_context(Client(stack.settings.api_url, key=stack.key))
        yield Watched(
            stack=stack,
            exporter=exporter,
            autoscaler=autoscaler,
            prometheus=prometheus,
            receiver=receiver,
            client=client,
        )
