"""Shows the platform at a glance, beyond the tenant of whoever asks."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.routes import Here, Watcher, answer, route
from taskplatform.overview import Overview

router = APIRouter()


@route(router, "GET", "/v1/overview", shows=Overview)
async def get_overview(services: Here, _caller: Watcher) -> Response:
    """Count the live jobs of all tenants by pool and state, and list workers; totals since Postgres began to count.

    Jobs and dead letters are counted the more seldom the longer it takes: `counted_seconds_ago` tells.
    """
    return answer(await services.counting.overview(await services.store.glance()))
