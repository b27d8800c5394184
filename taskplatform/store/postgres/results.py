"""Where a job stands, for synchronous readers such as Celery's AsyncResult: one connection, opened when first used."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

import psycopg

from taskplatform.errors import StoreUnavailable
from taskplatform.job import State
from taskplatform.shards import Homes, ShardMap
from taskplatform.store.postgres.conninfo import complete
from taskplatform.store.postgres.failures import CutOff, Purpose, translated
from taskplatform.store.postgres.maps import learn, map_told_by
from taskplatform.store.statements import statements


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a caller who waits for a job wants to know; `result` and `error` are JSON texts."""

    task: str
    state: State
    failures: int
    ended_at: datetime | None
    result: str | None
    error: str | None


class Reader(Protocol):
    """Reads jobs one by one; safe to share between threads and to keep across a fork."""

    def standing(self, job_id: UUID) -> Standing | None:
        """Tell where a job stands; None when there is none of that id. Raises StoreUnavailable."""

    def close(self) -> None:
        """Close the connections; the next read opens others."""


def new_reader(dsns: Sequence[str]) -> Reader:
    """Make the reader of one cluster or of several. Nothing is connected yet."""
    return ResultReader(dsns[0]) if len(dsns) == 1 else ShardedReader(dsns)


class ShardedReader:
    """Reads each job in the cluster where it is at home, and asks no other one."""

    def __init__(self, dsns: Sequence[str]) -> None:
        self._dsns = dsns
        self._homes = Homes(len(dsns))
        self._readers = [ResultReader(dsn, number) for number, dsn in enumerate(dsns)]

    def standing(self, job_id: UUID) -> Standing | None:
        """Tell where a job stands; None when there is none of that id. Raises StoreUnavailable."""
        if not self._homes.version:
            learn(self._dsns, self._homes)
        reader = self._readers[self._homes.of(job_id)]
        found = reader.standing(job_id)
        # A cluster that has lost the shard knows the newer map first.
        if found is None and self._homes.adopt(reader.known_map()):
            found = self._readers[self._homes.of(job_id)].standing(job_id)
        return found

    def close(self) -> None:
        """Close the connections; the next read opens others."""
        for reader in self._readers:
            reader.close()


class ResultReader:
    """Reads jobs one by one; safe to share between threads and to keep across a fork."""

    def __init__(self, dsn: str, cluster: int | None = None) -> None:
        self._dsn = dsn
        self._cluster = cluster
        self._connection: psycopg.Connection | None = None
        self._pid = 0
        self._lock = threading.Lock()

    def standing(self, job_id: UUID) -> Standing | None:
        """Tell where a job stands; None when there is none of that id. Raises StoreUnavailable."""
        with self._lock:
            try:
                return self._read(job_id)
            except CutOff:
                return self._read(job_id)

    def known_map(self) -> ShardMap:
        """Give the newest map that this cluster, one of several, knows. Raises StoreUnavailable."""
        with self._lock:
            try:
                return map_told_by(self._open(), self._cluster or 0).map
            except StoreUnavailable:
                self._drop()
                raise

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        with self._lock:
            self._drop()

    def _read(self, job_id: UUID) -> Standing | None:
        connection = self._open()
        try:
            with translated(Purpose.READ):
                row = connection.execute(statements()["get_standing"], [str(job_id)]).fetchone()
        except Exception:
            self._drop()
            raise
        if row is None:
            return None
        task, state, failures, ended_at, result, error = row
        return Standing(task=task, state=State(state), failures=failures, ended_at=ended_at, result=result, error=error)

    def _open(self) -> psycopg.Connection:
        if self._pid != os.getpid():
            # The connection of the process that forked this one is not ours to close.
            self._connection = None
        if self._connection is None or self._connection.closed:
            with translated(Purpose.CONNECT):
                self._connection = psycopg.connect(
                    complete(self._dsn), autocommit=True, cursor_factory=psycopg.RawCursor
                )
            self._pid = os.getpid()
            if self._cluster is not None:
                self._identify(self._connection, self._cluster)
        return self._connection

    def _identify(self, connection: psycopg.Connection, cluster: int) -> None:
        try:
            map_told_by(connection, cluster)
        except StoreUnavailable:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
        self._connection = None
