"""The Redis or Valkey driver: kombu's message layout on lists, for the embedded mode."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from uuid import uuid4

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from taskplatform.broker.contract import DeadMessage
from taskplatform.broker.dead import first_death
from taskplatform.cancelling import cancel
from taskplatform.errors import BrokerUnavailable, SettingsError
from taskplatform.payload import CONTENT_ENCODING, CONTENT_TYPE, Message

_AT_ONCE = 500
_CONNECTIONS = 16
_PING_SECONDS = 5.0
_TAKER_SECONDS = 30
_TAKER_MILLISECONDS = _TAKER_SECONDS * 1000
# Only who still holds the right may give it back.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

logger = logging.getLogger(__name__)


class RedisBroker:
    """Implements taskplatform.broker.contract.Broker over one server.

    A message counts as confirmed when the server answered the push. What that is worth is the server's `appendfsync`:
    with `always` the message is on disk by then, with `everysec` a crash of the machine loses up to a second of them
    (a crash of the server alone loses none), and the row in Postgres is published again as stranded. The server must
    run with `maxmemory-policy noeviction`: a full one then refuses, and what it refuses is not confirmed.

    One process at a time takes the dead letters of a queue; others are given none. What a taker did not settle, or
    held when it crashed, comes again, after a crash within half a minute. Raises SettingsError for a malformed URL.
    """

    def __init__(self, url: str, *, publish_timeout_seconds: float) -> None:
        self._timeout_seconds = publish_timeout_seconds
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=publish_timeout_seconds,
                socket_timeout=publish_timeout_seconds,
                socket_connect_timeout=publish_timeout_seconds,
                # One more try, at once, is for connections that ended while nobody used them.
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError as error:
            raise SettingsError(f"broker_url: {error}") from None
        self._redis = Redis.from_pool(pool)
        self._name = uuid4().hex
        self._connected = False
        self._watch: asyncio.Task[None] | None = None
        self._guarded: set[str] = set()
        self._taken: dict[int, tuple[DeadMessage, bytes]] = {}
        self._tags = count(1)

    async def start(self) -> None:
        """See Broker.start. May be called again."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_watch(), name="broker-watch")

    async def stop(self) -> None:
        """See Broker.stop. May be called again, and before start."""
        if self._watch:
            await cancel(self._watch)
            self._watch = None
        with contextlib.suppress(BrokerUnavailable):
            async with self._asking():
                for queue in self._guarded:
                    await self._redis.eval(_RELEASE, 1, _taker(queue), self._name)
        self._guarded.clear()
        self._taken.clear()
        await self._redis.aclose()
        self._connected = False

    @property
    def keeps_confirmed(self) -> bool:
        """See Broker.keeps_confirmed: how often Redis writes to its disk is its own affair."""
        return False

    @property
    def connected(self) -> bool:
        """See Broker.connected."""
        return self._connected

    async def publish(self, messages: Sequence[Message]) -> set[str]:
        """See Broker.publish. A push makes the queue it goes to, so that nothing is unroutable."""
        confirmed: set[str] = set()
        try:
            async with self._asking():
                for start in range(0, len(messages), _AT_ONCE):
                    confirmed |= await self._push(messages[start : start + _AT_ONCE])
        except BrokerUnavailable as error:
            logger.warning("The broker did not take messages: %s", error)
        return confirmed

    async def declare(self, pools: Collection[str]) -> None:
        """See Broker.declare. Lists need no declaration: this only asks whether the server is there."""
        async with self._asking():
            await self._redis.ping()

    async def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """See Broker.depths. A queue that nothing was ever pushed to is an empty list: it counts 0."""
        async with self._asking(), self._redis.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.llen(queue)
            return dict(zip(queues, await pipeline.execute(), strict=True))

    async def take_dead(self, queue: str, limit: int) -> list[DeadMessage]:
        """See Broker.take_dead. What was taken before and not settled is part of the answer again."""
        async with self._asking():
            if not await self._may_take(queue):
                return []
            held = await self._redis.lrange(_held(queue), -limit, -1)
            raws = [raw for raw in reversed(held) if isinstance(raw, bytes)]
            async with self._redis.pipeline(transaction=False) as pipeline:
                for _ in range(limit - len(raws)):
                    pipeline.lmove(queue, _held(queue), "RIGHT", "LEFT")
                raws += [raw for raw in await pipeline.execute() if isinstance(raw, bytes)]
        before = {raw: message for message, raw in self._taken.values() if message.queue == queue}
        self._taken = {tag: entry for tag, entry in self._taken.items() if entry[0].queue != queue}
        taken = [before.get(raw) or self._dead(queue, raw) for raw in raws]
        self._taken |= {message.tag: (message, raw) for message, raw in zip(taken, raws, strict=True)}
        return taken

    async def settle_dead(self, messages: Sequence[DeadMessage]) -> None:
        """See Broker.settle_dead."""
        settled = [(message, self._taken[message.tag][1]) for message in messages if message.tag in self._taken]
        async with self._asking(), self._redis.pipeline(transaction=False) as pipeline:
            for message, raw in settled:
                pipeline.execute_command("LREM", _held(message.queue), -1, raw)
            await pipeline.execute()
        for message, _ in settled:
            self._taken.pop(message.tag, None)

    async def _push(self, messages: Sequence[Message]) -> set[str]:
        by_queue: dict[str, list[Message]] = {}
        for message in messages:
            by_queue.setdefault(message.routing_key, []).append(message)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for queue, group in by_queue.items():
                pipeline.lpush(queue, *map(_envelope, group))
            answers = await pipeline.execute(raise_on_error=False)
        confirmed: set[str] = set()
        for (queue, group), answer in zip(by_queue.items(), answers, strict=True):
            if isinstance(answer, int):
                confirmed.update(message.id for message in group)
            else:
                logger.warning("The broker refused messages for %s: %s", queue, answer)
        return confirmed

    async def _may_take(self, queue: str) -> bool:
        key = _taker(queue)
        self._guarded.add(queue)
        if await self._redis.set(key, self._name, nx=True, px=_TAKER_MILLISECONDS):
            return True
        if await self._redis.get(key) != self._name.encode():
            return False
        await self._redis.pexpire(key, _TAKER_MILLISECONDS)
        return True

    def _dead(self, queue: str, raw: bytes) -> DeadMessage:
        envelope = _read(raw)
        reason, source = first_death(envelope.headers)
        return DeadMessage(
            tag=next(self._tags),
            queue=queue,
            source_queue=source or queue,
            reason=reason,
            headers=envelope.headers,
            properties=envelope.properties,
            body=envelope.body,
        )

    async def _keep_watch(self) -> None:
        while True:
            was = self._connected
            try:
                async with self._asking():
                    await self._redis.ping()
            except BrokerUnavailable as error:
                logger.log(logging.WARNING if was else logging.DEBUG, "The broker cannot be reached: %s", error)
            await asyncio.sleep(_PING_SECONDS)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except TimeoutError:
            self._connected = False
            raise BrokerUnavailable(f"Redis did not answer within {self._timeout_seconds:g} s") from None
        except (RedisError, OSError) as error:
            self._connected = False
            raise BrokerUnavailable(f"Redis: {error}") from None
        self._connected = True


class _Letter(msgspec.Struct):
    headers: dict[str, Any]
    properties: dict[str, Any]
    body: bytes


def _held(queue: str) -> str:
    return f"{queue}.taken"


def _taker(queue: str) -> str:
    return f"{queue}.taker"


def _envelope(message: Message) -> bytes:
    return msgspec.json.encode(
        {
            "body": b64encode(message.body).decode(),
            "content-encoding": CONTENT_ENCODING,
            "content-type": CONTENT_TYPE,
            "headers": message.headers,
            "properties": {
                "correlation_id": message.id,
                "message_id": message.id,
                "type": message.headers.get("task"),
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": message.routing_key},
                "priority": 0,
                "body_encoding": "base64",
                # kombu keeps unacknowledged messages under this name, so it must be new with every push.
                "delivery_tag": str(uuid4()),
            },
        }
    )


def _read(raw: bytes) -> _Letter:
    try:
        whole = msgspec.json.decode(raw, type=dict[str, Any])
        headers = dict(whole.get("headers") or {})
        properties = dict(whole.get("properties") or {})
        body = str(whole["body"])
        decoded = b64decode(body, validate=True) if properties.get("body_encoding") == "base64" else body.encode()
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError):
        # What nobody can read is shown as it is: the last thing it may do is block the way out of this queue.
        return _Letter(headers={}, properties={}, body=raw)
    properties["content_type"] = whole.get("content-type")
    properties["content_encoding"] = whole.get("content-encoding")
    return _Letter(headers=headers, properties=properties, body=decoded)
