"""Dramatiq on RabbitMQ: durable queue, confirms, late acknowledgement as always; results in Redis, or none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results as ResultMiddleware
from dramatiq.results.backends import RedisBackend

from benchmarks import work
from benchmarks.orders import Work
from benchmarks.places import Results, places
from benchmarks.storage import Keys, Storage

PACKAGES: tuple[str, ...] = ("dramatiq", "pika")
BULK = False
LANES = 1
WORKER = ["-m", "dramatiq", "benchmarks.peers.dramatiq_rabbitmq", "--processes", "2", "--threads", "8"]

_places = places()
_keeps = _places.results is Results.REDIS
broker = RabbitmqBroker(url=_places.broker_url, confirm_delivery=True)
if _keeps:
    broker.add_middleware(ResultMiddleware(backend=RedisBackend(url=_places.redis_url)))
dramatiq.set_broker(broker)
_options = {"store_results": True} if _keeps else {}
_actors = {
    Work.NOOP: dramatiq.actor(work.noop, actor_name="noop", **_options),
    Work.NAP: dramatiq.actor(work.nap, actor_name="nap", **_options),
}


async def prepare() -> None:
    """Do nothing: the queues make themselves."""


class _Client:
    async def one(self, kind: Work, number: int) -> None:
        _actors[kind].send(number)

    async def many(self, kind: Work, numbers: Sequence[int]) -> None:
        for number in numbers:
            await self.one(kind, number)


@asynccontextmanager
async def client() -> AsyncIterator[_Client]:
    """Connect anew: a connection that nobody serves between two measurements is cut by its heartbeat."""
    del broker.connection
    broker.declare_queue("default", ensure=True)
    yield _Client()


def storage() -> Storage:
    """Give its results in Redis: the middleware keeps each in a list of one."""
    return Keys(_places.redis_url, lambda value: int(json.loads(value)), get="LINDEX")
