"""Stock Celery on RabbitMQ: quorum queue, late acknowledgement, confirms; results in Postgres, in Redis, or none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from celery import Celery
from kombu import Queue

from benchmarks import work
from benchmarks.orders import Work
from benchmarks.places import Results, places
from benchmarks.storage import Keys, Rows, Storage

PACKAGES: tuple[str, ...] = ("celery", "kombu", "sqlalchemy")
BULK = False
LANES = 1
WORKER = [
    *("-m", "celery", "-A", "benchmarks.peers.stock_celery", "worker", "-l", "WARNING"),
    *("-P", "prefork", "-c", "2", "--without-gossip", "--without-mingle"),
]
_PREFETCH_PER_PROCESS = 32

_places = places()
_backends = {
    Results.POSTGRES: "db+" + _places.database_url.replace("postgresql://", "postgresql+psycopg://"),
    Results.REDIS: _places.redis_url,
    Results.NONE: None,
}
app = Celery("stock", broker=_places.broker_url, backend=_backends[_places.results])
app.conf.update(
    task_queues=[Queue("stock", routing_key="stock", queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue="stock",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=_places.results is Results.NONE,
    worker_prefetch_multiplier=_PREFETCH_PER_PROCESS,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    accept_content=["json"],
    result_accept_content=["json"],
)
_tasks = {Work.NOOP: app.task(name="noop")(work.noop), Work.NAP: app.task(name="nap")(work.nap)}


async def prepare() -> None:
    """Do nothing: queue and table make themselves."""


class _Client:
    async def one(self, kind: Work, number: int) -> None:
        _tasks[kind].delay(number)

    async def many(self, kind: Work, numbers: Sequence[int]) -> None:
        for number in numbers:
            await self.one(kind, number)


@asynccontextmanager
async def client() -> AsyncIterator[_Client]:
    """Connect."""
    with app.producer_or_acquire() as producer:
        producer.connection.ensure_connection()
    yield _Client()


def storage() -> Storage:
    """Give its result table, or its results in Redis."""
    if _places.results is Results.REDIS:
        return Keys(_places.redis_url, lambda value: int(json.loads(value)["result"]))
    return Rows(
        url=_places.database_url,
        counting="SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'",
        listing="SELECT result FROM celery_taskmeta WHERE status = 'SUCCESS'",
        read=lambda value: int(json.loads(bytes(value))),
    )
