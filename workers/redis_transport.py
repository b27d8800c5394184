"""kombu's Redis transport for a consumer in a hurry: many messages per round trip, dead letters, no unpacked body."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from queue import Empty
from typing import Any

from kombu.transport import redis
from kombu.transport.virtual import base as virtual

from taskplatform.errors import InvalidInput
from taskplatform.topology import dead_queue, pool_of

# The stubs know few of its attributes.
_RedisChannel: Any = redis.Channel
_RedisQoS: Any = redis.QoS

_MOST_AT_ONCE = 100

# Takes messages off a list and, in the same step, notes them as kombu does, so that a crash loses none.
_TAKE = """
local taken = {}
for _, item in ipairs(redis.call('RPOP', KEYS[1], ARGV[1]) or {}) do
    local readable, message = pcall(cjson.decode, item)
    local properties = readable and type(message) == 'table' and message.properties
    local tag = type(properties) == 'table' and properties.delivery_tag
    if type(tag) == 'string' then
        redis.call('ZADD', KEYS[2], ARGV[2], tag)
        redis.call('HSET', KEYS[3], tag, '[' .. item .. ',"","' .. ARGV[3] .. '"]')
        taken[#taken + 1] = tag
    else
        taken[#taken + 1] = ''
    end
    taken[#taken + 1] = item
end
return taken
"""


class RedisMessage(virtual.Message):
    """A received message as it is, see AmqpMessage."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        headers = payload.get("headers") or {}
        super().__init__({**payload, "headers": {}}, channel=channel, **options)
        self._raw = payload
        self.headers = headers


class RedisQoS(_RedisQoS):
    """Knows which messages the server has noted already."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.noted: set[str] = set()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivery, here and on the server."""
        if delivery_tag in self.noted:
            self.noted.remove(delivery_tag)
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack_all(self, tags: Sequence[str]) -> None:
        """Acknowledge many deliveries in one round trip."""
        with self.pipe_or_acquire() as pipeline:
            pipeline.zrem(self.unacked_index_key, *tags).hdel(self.unacked_key, *tags).execute()
        for tag in tags:
            virtual.QoS.ack(self, tag)


class RedisChannel(_RedisChannel):
    """Dead-letters what is rejected, and what is no message of kombu's at all, to its pool's dead-letter list."""

    Message = RedisMessage
    QoS = RedisQoS

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put a message back, or on the dead-letter list with why and from where."""
        held = None if requeue else self.client.hget(self.unacked_key, delivery_tag)
        if held is not None:
            message, _, queue = json.loads(held)
            headers = message.get("headers") or {}
            headers |= {"x-first-death-reason": "rejected", "x-first-death-queue": queue}
            # The list and the index change together, or not at all.
            with self.conn_or_acquire() as client, client.pipeline(transaction=True) as pipeline:
                pipeline.lpush(_dead_list(queue), json.dumps({**message, "headers": headers}))
                pipeline.zrem(self.unacked_index_key, delivery_tag)
                pipeline.hdel(self.unacked_key, delivery_tag)
                pipeline.execute()
        super().basic_reject(delivery_tag, requeue=requeue)

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not answer:
                raise Empty
            queue = _text(answer[0]).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            more = self._take_more(queue)
            self._hand_out(queue, "", answer[1])
            for tag, item in more:
                self._hand_out(queue, tag, item)
            return True
        finally:
            self._in_poll = None

    def _take_more(self, queue: str) -> list[tuple[str, bytes]]:
        room = min((self.qos.can_consume_max_estimate() or 1) - 1, _MOST_AT_ONCE)
        if room <= 0:
            return []
        keys = (queue, self.unacked_index_key, self.unacked_key)
        with self.conn_or_acquire() as client:
            flat = client.eval(_TAKE, len(keys), *keys, room, time.time(), queue)
        return [(_text(tag), item) for tag, item in zip(flat[::2], flat[1::2], strict=True)]

    def _hand_out(self, queue: str, noted: str, item: bytes) -> None:
        message = _message(item)
        if message is not None:
            if noted:
                self.qos.noted.add(noted)
            self.connection._deliver(message, queue)
            return
        with self.conn_or_acquire() as client, client.pipeline(transaction=True) as pipeline:
            pipeline.lpush(_dead_list(queue), item)
            pipeline.zrem(self.unacked_index_key, noted)
            pipeline.hdel(self.unacked_key, noted)
            pipeline.execute()


class RedisTransport(redis.Transport):
    """kombu's Redis transport with RedisChannel."""

    Channel = RedisChannel


def _dead_list(queue: str) -> str:
    try:
        return dead_queue(pool_of(queue))
    except InvalidInput:
        return f"{queue}.dead"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _message(item: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(item)
        if not isinstance(message["body"], str) or not isinstance(message["properties"]["delivery_tag"], str):
            return None
        if not isinstance(message.get("headers") or {}, dict):
            return None
        virtual.Base64().decode(message["body"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    info = message["properties"].get("delivery_info")
    message["properties"]["delivery_info"] = info if isinstance(info, dict) else {}
    whole: dict[str, Any] = message
    return whole
