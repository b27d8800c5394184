"""The program that stands for one side, in that side's environment: submits its jobs and counts what it has stored."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, cast

import msgspec
import uvloop

from benchmarks.orders import Client, Count, How, Numbers, Order, Peer, Ready, Submit, Timing

_CHUNK = 100


def main() -> None:
    """Obey the orders on the standard input until it ends; the module of the side is the argument."""
    peer = cast(Peer, importlib.import_module(sys.argv[1]))
    uvloop.run(peer.prepare())
    _say(Ready(worker=peer.WORKER, versions={name: version(name) for name in peer.PACKAGES}, bulk=peer.BULK))
    storage = peer.storage()
    for line in sys.stdin:
        match msgspec.json.decode(line, type=Order):
            case Submit() as order:
                _say(uvloop.run(_submit(peer, order)))
            case Count():
                _say(storage.count())
            case Numbers():
                _say(storage.numbers())


async def _submit(peer: Peer, order: Submit) -> Timing:
    numbers = range(order.first, order.first + order.count)
    async with peer.client() as client:
        first, cpu = time.monotonic(), time.process_time()
        match order.how:
            case How.PACED:
                await _paced(client, order, numbers, first)
            case How.BULK if peer.BULK:
                chunks = (numbers[at : at + _CHUNK] for at in range(0, order.count, _CHUNK))
                await _in_lanes(order.lanes or peer.LANES, [client.many(order.work, chunk) for chunk in chunks])
            case _:
                await _in_lanes(order.lanes or 1, (client.one(order.work, number) for number in numbers))
        return Timing(first=first, last=time.monotonic(), cpu_seconds=time.process_time() - cpu)


async def _in_lanes(lanes: int, calls: Any) -> None:
    waiting = iter(calls)
    async with asyncio.TaskGroup() as group:
        for _ in range(lanes):
            group.create_task(_one_after_the_other(waiting))


async def _one_after_the_other(waiting: Iterator[Any]) -> None:
    for call in waiting:
        await call


async def _paced(client: Client, order: Submit, numbers: range, first: float) -> None:
    for number in numbers:
        intended = first + (number - order.first) / order.per_second
        # Late calls are not left out: the wait of those behind them is counted from when they were meant to start.
        await asyncio.sleep(max(0.0, intended - time.monotonic()))
        await client.one(order.work, number)


def _say(answer: Any) -> None:
    print(msgspec.json.encode(answer).decode(), flush=True)


if __name__ == "__main__":
    main()
