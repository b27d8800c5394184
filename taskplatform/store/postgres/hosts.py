"""Finds that one of several hosts that will do, without waiting for those that stand still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from psycopg import AsyncConnection, Error, OperationalError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

_PAUSE_SECONDS = 0.3
_ROLES = ("read-write", "read-only", "primary", "standby")
"""What a server is, or is not, whichever is asked first; `any` and `prefer-standby` go by the order of the hosts."""
_IN_ORDER = "disable"

C = TypeVar("C", bound=AsyncConnection[Any])


async def connect_to_any(conninfo: str, connect: Callable[[str], Awaitable[C]]) -> C:
    """Connect to all hosts of a connection string at once, and give the first connection that comes about.

    One after the other, as libpq does it, each host that stands still would take its whole time-out. Meanwhile those
    that refuse are asked again: one of them may be about to take over. Raises psycopg.Error when all have refused.
    """
    hosts = each_host(conninfo)
    silent = set(hosts)
    trying = [asyncio.create_task(_insist(each, connect, silent)) for each in hosts]
    first: asyncio.Task[C] | None = None
    try:
        first = await _first(trying)
    finally:
        # Nothing is awaited here: whoever is cancelled meanwhile would leave connections behind.
        for one in trying:
            if one is not first or one.exception() is not None:
                one.add_done_callback(_hang_up)
                one.cancel()
    if first.exception() is not None and len(hosts) > 1:
        raise OperationalError("\n".join(map(_refusal, hosts, trying))) from first.exception()
    return first.result()


def each_host(conninfo: str) -> list[str]:
    """Give a connection string for each of the hosts that one names.

    Gives that itself where they do not fit together, and where their order means something or is drawn by lot.
    """
    said = conninfo_to_dict(conninfo)
    if said.get("target_session_attrs") not in _ROLES or said.get("load_balance_hosts", _IN_ORDER) != _IN_ORDER:
        return [conninfo]
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
        except Exception as error:
            silent.discard(host)
            if not silent or not isinstance(error, Error):
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def _first(trying: Sequence[asyncio.Task[C]]) -> asyncio.Task[C]:
    left = set(trying)
    while True:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        best = min(done, key=lambda one: one.exception() is not None)
        if best.exception() is None or not left:
            return best


def _hang_up(lost: asyncio.Task[C]) -> None:
    if not lost.cancelled() and lost.exception() is None:
        lost.result().pgconn.finish()


def _refusal(host: str, trying: asyncio.Task[C]) -> str:
    said = conninfo_to_dict(host)
    return f"{said.get('host') or said.get('hostaddr')}:{said.get('port', '')}: {trying.exception()}"
