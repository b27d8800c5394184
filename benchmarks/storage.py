"""What a side has stored of its jobs, read past its own interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, LiteralString, Protocol

import psycopg
import redis


class Storage(Protocol):
    """Stored results, or records of success where a side keeps no results."""

    def count(self) -> int:
        """Count them; asked often, so it is cheap."""

    def numbers(self) -> list[int] | None:
        """Give what every job returned, in any order; None where only the success is on record."""


@dataclass(slots=True, kw_only=True)
class Rows:
    """Rows of a table in Postgres, over one kept connection; `listing` None means that no row says whose it is."""

    url: str
    counting: LiteralString
    listing: LiteralString | None = None
    read: Callable[[Any], int] = int
    _connection: psycopg.Connection[tuple[Any, ...]] | None = field(default=None, init=False)

    def count(self) -> int:
        """Count the rows."""
        return int(self._ask(self.counting)[0][0])

    def numbers(self) -> list[int] | None:
        """Read the number in every row."""
        return None if self.listing is None else [self.read(value) for (value,) in self._ask(self.listing)]

    def _ask(self, statement: LiteralString) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = psycopg.connect(self.url, autocommit=True)
        return self._connection.execute(statement).fetchall()


@dataclass(slots=True)
class Keys:
    """Keys of a database in Redis that nobody else uses; `get` names the command that reads one."""

    url: str
    read: Callable[[bytes], int]
    get: str = "GET"

    def count(self) -> int:
        """Count the keys."""
        return int(self._client().execute_command("DBSIZE"))

    def numbers(self) -> list[int] | None:
        """Read the number under every key."""
        client = self._client()
        first = partial(client.execute_command, self.get)
        more = (0,) if self.get == "LINDEX" else ()
        return [self.read(first(key, *more)) for key in client.scan_iter(count=1000)]

    def _client(self) -> Any:
        return redis.Redis.from_url(self.url)
