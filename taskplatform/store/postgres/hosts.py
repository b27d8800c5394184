"""Finds that one of several hosts that will do, without waiting for those that stand still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from psycopg import AsyncConnection, Error
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from taskplatform.cancelling import cancel

_PAUSE_SECONDS = 0.3

C = TypeVar("C", bound=AsyncConnection[Any])


async def connect_to_any(conninfo: str, connect: Callable[[str], Awaitable[C]]) -> C:
    """Connect to all hosts of a connection string at once, and give the first connection that comes about.

    One after the other, as libpq does it, each host that stands still would take its whole time-out. Meanwhile those
    that refuse are asked again: one of them may be about to take over. Raises psycopg.Error when all have refused.
    """
    hosts = each_host(conninfo)
    silent = set(hosts)
    trying = [asyncio.create_task(_insist(each, connect, silent)) for each in hosts]
    first: C | None = None
    try:
        first = await _first(trying)
        return first
    finally:
        await cancel(*trying)
        for one in trying:
            if not one.cancelled() and one.exception() is None and one.result() is not first:
                await one.result().close()


def each_host(conninfo: str) -> list[str]:
    """Give a connection string for each of the hosts that one names; that itself where they do not fit together."""
    said = conninfo_to_dict(conninfo)
    lists = {name: str(said[name]).split(",") for name in ("host", "hostaddr", "port") if said.get(name)}
    hosts = max((len(each) for name, each in lists.items() if name != "port"), default=1)
    if len(lists.get("port", ())) == 1:
        lists["port"] *= hosts
    if hosts == 1 or any(len(each) != hosts for each in lists.values()):
        return [conninfo]
    return [make_conninfo(conninfo, **{name: each[place] for name, each in lists.items()}) for place in range(hosts)]


async def _insist(host: str, connect: Callable[[str], Awaitable[C]], silent: set[str]) -> C:
    while True:
        try:
            return await connect(host)
        except Error:
            silent.discard(host)
            if not silent:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def _first(trying: Sequence[asyncio.Task[C]]) -> C:
    left = set(trying)
    while True:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        best = min(done, key=lambda one: one.exception() is not None)
        if best.exception() is None or not left:
            return best.result()
