"""A dispatcher process that kills itself at one step, as a crash would: `python doomed.py <step>`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, cast

from taskplatform.background import dispatch
from taskplatform.broker.contract import Broker
from taskplatform.payload import Message
from taskplatform.settings import load
from taskplatform.store.clusters import Cluster
from taskplatform.wiring import new_broker, new_store


class Step(StrEnum):
    """Where the process dies."""

    RELEASED = "before publish"
    PUBLISHED = "after publish, before settle"
    SETTLED = "after settle"
    ARCHIVED = "after the archive took jobs, before they are forgotten"
    BURIED = "after bury, before the acknowledgement"


class Doomed:
    """Passes everything on, and kills the process before or after one method."""

    def __init__(self, inner: Any, step: Step) -> None:
        self._inner = inner
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(self, messages: Sequence[Message]) -> set[str]:
        if self._step is Step.RELEASED:
            _die()
        confirmed: set[str] = await self._inner.publish(messages)
        if self._step is Step.PUBLISHED:
            _die()
        return confirmed

    async def settle_outbox(self, outbox_ids: Sequence[int]) -> None:
        await self._inner.settle_outbox(outbox_ids)
        if self._step is Step.SETTLED:
            _die()

    async def bury(self, messages: Sequence[Any]) -> list[bool]:
        done: list[bool] = await self._inner.bury(messages)
        if self._step is Step.BURIED:
            _die()
        return done

    async def prune(self, policy: Any, limit: int, archive: Any) -> Any:
        return await self._inner.prune(policy, limit, _DoomedArchive(archive) if archive else None)


class _DoomedArchive:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def begin(self, part: str, sequence: int) -> Any:
        batch = self._inner.begin(part, sequence)
        return _DoomedBatch(batch) if sequence else batch


class _DoomedBatch:
    def __init__(self, inner: Any) -> None:
        self.add = inner.add
        self._inner = inner

    @property
    def full(self) -> bool:
        return bool(self._inner.full)

    async def close(self) -> None:
        await self._inner.close()
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _run(step: Step) -> None:
    settings = load()
    broker = new_broker(settings)
    await broker.start()
    store = new_store(settings)
    await dispatch(
        settings, cast("Cluster", Doomed(store, step)), cast("Broker", Doomed(broker, step)), asyncio.Event()
    )


if __name__ == "__main__":
    asyncio.run(_run(Step(sys.argv[1])))
