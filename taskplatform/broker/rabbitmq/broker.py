"""The RabbitMQ broker of a service: one connection that publishes and is kept up, and one for everything else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Collection, Sequence

from taskplatform.broker.contract import DeadMessage
from taskplatform.broker.rabbitmq.address import Address
from taskplatform.broker.rabbitmq.connection import connect
from taskplatform.broker.rabbitmq.operations import Operations
from taskplatform.broker.rabbitmq.publisher import Publisher
from taskplatform.cancelling import cancel
from taskplatform.errors import BrokerUnavailable, SettingsError
from taskplatform.payload import Message

_CONNECT_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
_STABLE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class RabbitMQBroker:
    """Implements taskplatform.broker.contract.Broker over one or several nodes of a RabbitMQ cluster.

    `urls` are tried in turn. Publishes wait for a connection that is being made, but not for a broker that is known to
    be away: then they confirm nothing, at once. Raises SettingsError for a malformed URL.
    """

    def __init__(self, urls: Sequence[str], *, publish_timeout_seconds: float) -> None:
        self._addresses = [Address.parse(url) for url in urls if url.strip()]
        if not self._addresses:
            raise SettingsError("broker_url: no broker is named")
        self._publish_timeout_seconds = publish_timeout_seconds
        self._operations = Operations(self._addresses, publish_timeout_seconds)
        self._publisher: Publisher | None = None
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See Broker.start. May be called again."""
        if self._keeper is None:
            self._tried.clear()
            self._keeper = asyncio.create_task(self._stay_connected(), name="broker-connection")

    async def stop(self) -> None:
        """See Broker.stop. May be called again, and before start."""
        if self._keeper:
            await cancel(self._keeper)
            self._keeper = None
        await self._operations.stop()

    @property
    def keeps_confirmed(self) -> bool:
        """See Broker.keeps_confirmed: a quorum queue confirms what is on disk."""
        return True

    @property
    def connected(self) -> bool:
        """See Broker.connected."""
        return self._publisher is not None

    async def publish(self, messages: Sequence[Message]) -> set[str]:
        """See Broker.publish."""
        if not messages:
            return set()
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._publish_timeout_seconds
        if self._publisher is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._publish_timeout_seconds):
                    await self._tried.wait()
        if self._publisher is None:
            return set()
        return await self._publisher.publish(messages, deadline - clock())

    async def declare(self, pools: Collection[str]) -> None:
        """See Broker.declare."""
        await self._operations.declare(pools)

    async def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """See Broker.depths."""
        return await self._operations.depths(queues)

    async def take_dead(self, queue: str, limit: int) -> list[DeadMessage]:
        """See Broker.take_dead. What was taken before and not settled is part of the answer again."""
        return await self._operations.take_dead(queue, limit)

    async def settle_dead(self, messages: Sequence[DeadMessage]) -> None:
        """See Broker.settle_dead."""
        await self._operations.settle_dead(messages)

    async def _stay_connected(self) -> None:
        clock = asyncio.get_running_loop().time
        failures = 0
        while True:
            self._tried.clear()
            began = clock()
            address = self._addresses[failures % len(self._addresses)]
            try:
                await self._hold(address)
            except BrokerUnavailable as error:
                failures = 1 if clock() - began > _STABLE_SECONDS + _CONNECT_SECONDS else failures + 1
                level = logging.WARNING if failures == 1 else logging.DEBUG
                logger.log(level, "The broker cannot be reached: %s", error)
            finally:
                self._publisher = None
                self._tried.set()
            rounds = min(failures // len(self._addresses), 10)
            longest = min(_FIRST_PAUSE_SECONDS * 2**rounds, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(random.uniform(0, longest))

    async def _hold(self, address: Address) -> None:
        connection = await connect(address, "publisher", _CONNECT_SECONDS)
        try:
            # Not wait_for: before Python 3.12 it forgets a cancellation that comes together with the answer.
            async with asyncio.timeout(_CONNECT_SECONDS):
                self._publisher = await Publisher.on(connection)
            self._tried.set()
            logger.info("Connected to the broker at %s", address)
            await connection.closed.wait()
        except TimeoutError:
            raise BrokerUnavailable(f"{address}: no channel within {_CONNECT_SECONDS:g} s") from None
        finally:
            await connection.close()
        if connection.lost:
            raise connection.lost
