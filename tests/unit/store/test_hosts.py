import asyncio
from typing import Any, cast

import pytest
from psycopg import AsyncConnection, OperationalError
from psycopg.conninfo import conninfo_to_dict

from taskplatform.store.postgres.hosts import connect_to_any, each_host

_TWO = "host=one,two port=1,2 target_session_attrs=read-write"


class Made:
    """A connection that came about, and its own handle of libpq."""

    def __init__(self) -> None:
        self.open = True

    @property
    def pgconn(self) -> "Made":
        """Itself."""
        return self

    def finish(self) -> None:
        """Close it."""
        self.open = False


@pytest.mark.parametrize(
    ("conninfo", "places"),
    [
        ("host=one port=1 dbname=x", [("one", "1")]),
        ("host=one,two,three port=1,2,3 dbname=x", [("one", "1"), ("two", "2"), ("three", "3")]),
        ("host=one,two port=1 dbname=x", [("one", "1"), ("two", "1")]),
        ("host=one,two dbname=x", [("one", None), ("two", None)]),
        ("dbname=x", [(None, None)]),
    ],
)
def test_each_host_gets_a_connection_string_of_its_own(conninfo: str, places: list[tuple[str | None, ...]]) -> None:
    found = [conninfo_to_dict(each) for each in each_host(f"{conninfo} target_session_attrs=read-write")]

    assert [(one.get("host"), one.get("port")) for one in found] == places
    assert {one["dbname"] for one in found} == {"x"}


def test_addresses_go_with_their_hosts() -> None:
    conninfo = "host=one,two hostaddr=127.0.0.1,127.0.0.2 target_session_attrs=standby"

    found = [conninfo_to_dict(each) for each in each_host(conninfo)]

    assert [(one["host"], one["hostaddr"]) for one in found] == [("one", "127.0.0.1"), ("two", "127.0.0.2")]


@pytest.mark.parametrize(
    "conninfo",
    [
        "host=one,two,three port=1,2 target_session_attrs=read-write",
        "host=one,two",
        "host=one,two target_session_attrs=any",
        "host=one,two target_session_attrs=prefer-standby",
        "host=one,two target_session_attrs=read-write load_balance_hosts=random",
    ],
)
def test_hosts_that_do_not_fit_their_ports_or_whose_order_counts_are_left_to_libpq(conninfo: str) -> None:
    assert each_host(conninfo) == [conninfo]


def test_whoever_gives_up_leaves_no_connection_of_those_that_came_about_meanwhile() -> None:
    made = [Made(), Made()]

    async def give_up() -> None:
        async def connect(conninfo: str) -> AsyncConnection[Any]:
            # Both connections come about before whoever waits for them hears of any.
            trying.cancel()
            return cast("AsyncConnection[Any]", made["host=two" in conninfo])

        trying = asyncio.create_task(connect_to_any(_TWO, connect))
        await asyncio.wait({trying})
        assert trying.cancelled()

    asyncio.run(give_up())

    assert [one.open for one in made] == [False, False]


def test_a_name_that_is_none_keeps_nobody_trying_and_every_refusal_is_told() -> None:
    async def connect(conninfo: str) -> AsyncConnection[Any]:
        raise UnicodeError("label too long") if "two" in conninfo else OperationalError("refused")

    with pytest.raises(OperationalError) as refused:
        asyncio.run(connect_to_any(f"{_TWO} password=secret", connect))

    assert str(refused.value).splitlines() == ["one:1: refused", "two:2: label too long"]
