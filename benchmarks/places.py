"""What a program of the measurement is told in its environment: where its servers are, and how to keep results."""

from __future__ import annotations

import os
from enum import StrEnum

import msgspec

_VARIABLE = "BENCH_PLACES"


class Results(StrEnum):
    """Where a peer keeps what its jobs returned."""

    POSTGRES = "postgres"
    REDIS = "redis"
    NONE = "none"


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses; `ledger` is the file in which jobs leave their marks, `api_port` and `api_key` are the platform's."""

    broker_url: str
    database_url: str
    redis_url: str
    ledger: str
    results: Results
    api_port: int = 0
    api_key: str = ""

    def environment(self) -> dict[str, str]:
        """Give the variables from which another process reads the same places."""
        return {_VARIABLE: msgspec.json.encode(self).decode()}


def places() -> Places:
    """Read the places of this process. Raises KeyError outside of a measurement."""
    return msgspec.json.decode(os.environ[_VARIABLE], type=Places)
