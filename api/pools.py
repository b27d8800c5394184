"""Tells how pools are scaled, and why; KEDA reads `desired` here."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.routes import Here, Watcher, answer, route
from api.views import ScaleDecisions, ScaleDecisionView, decision_view
from taskplatform.errors import AutoscalerSilent, NotFound
from taskplatform.task import POOL_PATTERN

router = APIRouter(tags=["pools"])

STALE_POLLS = 6
LEAST_STALE_SECONDS = 30.0

PoolName = Annotated[str, Path(pattern=POOL_PATTERN)]


@route(router, "GET", "/v1/pools", shows=ScaleDecisions)
async def list_pools(services: Here, _caller: Watcher) -> Response:
    """List the newest decision of the autoscaler about each pool."""
    found = await services.store.newest_decisions()
    return answer(ScaleDecisions(decisions=[decision_view(record) for record in found]))


@route(router, "GET", "/v1/pools/{pool}", shows=ScaleDecisionView)
async def get_pool(services: Here, _caller: Watcher, pool: PoolName) -> Response:
    """Read how many workers a pool should have; 503 when no autoscaler has decided lately."""
    found = await services.store.decisions(pool, 1)
    if not found:
        raise NotFound
    age = (services.now() - found[0].at).total_seconds()
    if age > max(STALE_POLLS * services.settings.autoscale_poll_seconds, LEAST_STALE_SECONDS):
        raise AutoscalerSilent(f"nothing was decided for {age:.0f} s")
    return answer(decision_view(found[0]))


@route(router, "GET", "/v1/pools/{pool}/decisions", shows=ScaleDecisions)
async def list_decisions(
    services: Here,
    _caller: Watcher,
    pool: PoolName,
    since: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """List what was decided about a pool, the newest first, with everything that it followed from."""
    found = await services.store.decisions(pool, limit, since=since)
    return answer(ScaleDecisions(decisions=[decision_view(record) for record in found]))
