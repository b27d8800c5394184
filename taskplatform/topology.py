"""The broker's queues as data: names and arguments, for whoever declares, publishes, consumes or counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from taskplatform.errors import InvalidInput
from taskplatform.job import Priority
from taskplatform.task import POOL_PATTERN

DELIVERY_LIMIT = 20
"""How often the broker hands out one message; far above what crashes need, since neighbours are counted too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One durable queue on the default exchange, declared with `arguments`."""

    name: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)


def work_queue(pool: str, priority: Priority) -> str:
    """Name the queue in which the jobs of a pool and priority wait. Raises InvalidInput for a malformed pool."""
    return f"jobs.{_checked(pool)}.{priority}"


def dead_queue(pool: str) -> str:
    """Name the queue in which a pool's dead letters wait for the undertaker."""
    return f"jobs.{_checked(pool)}.dead"


def work_queues(pool: str) -> list[str]:
    """Name a pool's work queues, the most urgent first."""
    return [work_queue(pool, priority) for priority in Priority]


def queues(pools: Iterable[str]) -> list[Queue]:
    """Give every queue that the pools need, each dead-letter queue before the queues that point at it.

    Quorum queues dead-letter at least once only together with `reject-publish`
    (RabbitMQ, "At-Least-Once Dead Lettering").
    """
    declared: list[Queue] = []
    for pool in dict.fromkeys(pools):
        declared.append(Queue(name=dead_queue(pool), arguments=_DEAD))
        work = {**_WORK, "x-dead-letter-routing-key": dead_queue(pool)}
        declared += [Queue(name=name, arguments=work) for name in work_queues(pool)]
    return declared


def pool_of(queue: str) -> str:
    """Read the pool out of a queue's name. Raises InvalidInput for a name that is none of ours."""
    parts = queue.split(".")
    if len(parts) != 3 or parts[0] != "jobs":
        raise InvalidInput(f"{queue!r} is not a queue of this platform", code="invalid_queue")
    return _checked(parts[1])


_POOL = re.compile(POOL_PATTERN)
_DEAD: Mapping[str, str | int] = MappingProxyType({"x-queue-type": "quorum", "x-overflow": "reject-publish"})
_WORK: Mapping[str, str | int] = MappingProxyType(
    {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
    }
)


def _checked(pool: str) -> str:
    if not _POOL.fullmatch(pool):
        detail = f"{pool!r} is not a pool: lower-case letters, digits, '-' and '_', a letter first, at most 63"
        raise InvalidInput(detail, code="invalid_pool", pointer="/pool")
    return pool
