"""pytest-celery without containers: its nodes and its setup, over the processes of this test run."""

from collections.abc import Callable, Iterator
from typing import Any

import celery
import pytest
import pytest_celery  # type: ignore[import-untyped]  # It ships no types.
from pydantic import SecretStr

from taskplatform.job import Priority
from taskplatform.servers import Postgres, RabbitMQ, Redis
from taskplatform.servers.process import Process
from taskplatform.topology import work_queue
from tests.fixtures.celery import Bench
from workers.app import new_app

# Its plugin as a whole is switched off in this project; these of its fixtures need no container.
celery_setup = pytest_celery.celery_setup
celery_setup_cls = pytest_celery.celery_setup_cls
celery_setup_config = pytest_celery.celery_setup_config
celery_setup_name = pytest_celery.celery_setup_name
celery_broker_cluster_config = pytest_celery.celery_broker_cluster_config
celery_backend_cluster_config = pytest_celery.celery_backend_cluster_config
celery_worker_cluster_config = pytest_celery.celery_worker_cluster_config


class LocalProcess:
    """Stands in for a container of pytest-celery: one process, which a node of its can end and start again."""

    def __init__(self, url: str, process: Process, start: Callable[[], Process]) -> None:
        self._url = url
        self._process = process
        self._start = start

    @property
    def celeryconfig(self) -> dict[str, str]:
        return {"url": self._url, "host_url": self._url}

    @property
    def name(self) -> str:
        return self._process.command.name

    @property
    def id(self) -> str:
        return str(self._process.pid)

    @property
    def status(self) -> str:
        return "running" if self._process.alive else "exited"

    def version(self) -> str:
        return celery.__version__

    def worker_name(self) -> str:
        return "default"

    def worker_queue(self) -> str:
        return work_queue("default", Priority.NORMAL)

    def logs(self) -> str:
        return self._process.log_tail(1_000)

    def ready(self) -> bool:
        return self._process.alive

    def reload(self) -> None:
        """Nothing is remembered of a process that would have to be asked for anew."""

    def kill(self, signal: str | int = "SIGKILL") -> None:
        if signal == "SIGKILL":
            self._process.kill()
        else:
            self._process.stop()

    def restart(self, timeout: float) -> None:
        self._process.stop(within_seconds=timeout)
        self._process = self._start()


@pytest.fixture(params=["rabbitmq", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A database, and each broker in turn."""
    found: Bench = request.getfixturevalue("amqp_bench" if request.param == "rabbitmq" else "redis_bench")
    return found


@pytest.fixture
def celery_broker_cluster(request: pytest.FixtureRequest, bench: Bench) -> Any:
    """The broker of the bench as a cluster of one node."""
    name = "rabbitmq" if bench.broker_url.startswith("amqp") else "redis"
    broker: RabbitMQ | Redis = request.getfixturevalue(name)
    return pytest_celery.CeleryBrokerCluster(
        pytest_celery.CeleryTestBroker(LocalProcess(bench.broker_url, broker.process, lambda: _started(broker)))
    )


@pytest.fixture
def celery_backend_cluster(postgres: Postgres, bench: Bench) -> Any:
    """The database of the bench, where results are read from, as a cluster of one node."""
    return pytest_celery.CeleryBackendCluster(
        pytest_celery.CeleryTestBackend(LocalProcess(bench.dsn, postgres.process, lambda: _started(postgres)))
    )


@pytest.fixture
def celery_worker_cluster(bench: Bench, celery_setup_app: Any) -> Any:
    """`python -m workers` as a cluster of one node; it ends with the bench."""

    def start() -> Process:
        return bench.worker(lease_seconds=2.0, lease_renew_seconds=0.5)

    return pytest_celery.CeleryWorkerCluster(
        pytest_celery.CeleryTestWorker(LocalProcess(bench.broker_url, start(), start), celery_setup_app)
    )


@pytest.fixture
def celery_setup_app(bench: Bench, celery_setup_config: dict[str, str]) -> Iterator[Any]:
    """The app of a program that hands jobs in to the setup's broker and reads from its backend."""
    places = {"broker_url": "broker_url", "database_url": "result_backend"}
    given = {name: SecretStr(celery_setup_config[place]) for name, place in places.items()}
    app: Any = new_app(bench.settings.changed(**given))
    yield app
    app.backend.close()
    app.close()


def _started(server: Postgres | RabbitMQ | Redis) -> Process:
    server.start()
    return server.process
