"""Taskiq on RabbitMQ: quorum queue and confirms by default, acknowledged when saved; results in Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from taskiq.serializers import JSONSerializer
from taskiq_aio_pika import AioPikaBroker
from taskiq_redis import RedisAsyncResultBackend

from benchmarks import work
from benchmarks.orders import Work
from benchmarks.places import places
from benchmarks.storage import Keys, Storage

PACKAGES: tuple[str, ...] = ("taskiq", "taskiq-aio-pika", "taskiq-redis", "aio-pika")
BULK = True
LANES = 1
WORKER = [
    *("-m", "taskiq", "worker", "benchmarks.peers.taskiq_rabbitmq:broker", "--workers", "2"),
    *("--log-level", "WARNING", "--ack-type", "when_saved"),
]
_PREFETCH = 64

_places = places()
broker = AioPikaBroker(_places.broker_url, qos=_PREFETCH).with_result_backend(
    RedisAsyncResultBackend(_places.redis_url, serializer=JSONSerializer())
)
_tasks = {
    Work.NOOP: broker.task(task_name="noop")(work.async_noop),
    Work.NAP: broker.task(task_name="nap")(work.async_nap),
}


async def prepare() -> None:
    """Do nothing: the queues make themselves."""


class _Client:
    async def one(self, kind: Work, number: int) -> None:
        await _tasks[kind].kiq(number)

    async def many(self, kind: Work, numbers: Sequence[int]) -> None:
        await asyncio.gather(*(self.one(kind, number) for number in numbers))


@asynccontextmanager
async def client() -> AsyncIterator[_Client]:
    """Connect."""
    await broker.startup()
    yield _Client()
    await broker.shutdown()


def storage() -> Storage:
    """Give its results in Redis."""
    return Keys(_places.redis_url, lambda value: int(json.loads(value)["return_value"]))
