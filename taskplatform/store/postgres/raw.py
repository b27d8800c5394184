"""Bare connections for those who drive libpq on an event loop of their own."""

from __future__ import annotations

import psycopg
from psycopg.pq.abc import PGconn

from taskplatform.errors import StoreUnavailable
from taskplatform.store.postgres.conninfo import complete
from taskplatform.store.postgres.failures import Purpose, translated
from taskplatform.store.postgres.maps import map_told_by


class RawConnection:
    """One connection to the primary, in autocommit mode; `pgconn` is libpq's own handle."""

    def __init__(self, dsn: str, cluster: int | None = None) -> None:
        """Connect, which blocks for a few seconds; with `cluster`, to the one of this number. Raises StoreUnavailable.

        A cluster that stands still just then blocks until it goes on.
        """
        with translated(Purpose.CONNECT):
            self._connection = psycopg.connect(complete(dsn), autocommit=True)
        if cluster is not None:
            try:
                map_told_by(self._connection, cluster)
            except StoreUnavailable:
                self.close()
                raise

    @property
    def pgconn(self) -> PGconn:
        """The handle of libpq; the connection may be used through it alone from now on."""
        return self._connection.pgconn

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self._connection.close()
