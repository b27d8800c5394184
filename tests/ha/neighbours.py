"""How those fared meanwhile who needed nothing of the cluster that failed."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from taskplatform.ids import locate, shard_of_key
from taskplatform.shards import spread
from tests.faults.history import Exchange

CLUSTERS = 2
LEAST_SHARE = 0.999
_TENANT = "default"


def lives_in_first(job_id: str) -> bool:
    """Tell whether a job is at home in the first of the clusters."""
    return spread(CLUSTERS)[locate(UUID(job_id)).shard] == 0


def neighbours_share(exchanges: Sequence[Exchange], begin: float, end: float) -> float:
    """Give the share of single submissions, sent in that time and not bound to the second cluster, that were accepted.

    One without a key may go to any cluster. 0 when there were none.
    """
    asked = [
        exchange
        for exchange in exchanges
        if begin < exchange.sent_at < end
        and len(exchange.keys) == 1
        and not exchange.reused
        and _may_go_to_first(exchange.keys[0])
    ]
    return sum(all(exchange.ids) for exchange in asked) / max(len(asked), 1)


def _may_go_to_first(key: str | None) -> bool:
    return key is None or spread(CLUSTERS)[shard_of_key(_TENANT, key)] == 0
