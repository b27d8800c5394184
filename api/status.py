"""Tells how this process is: alive, ready, its metrics, the tasks it knows, and what its problems mean."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter, Request, Response

from api.problems import KINDS
from api.routes import Here, Reader, answer, route
from api.views import Health, KeyView, Readiness, Tasks, task_view
from taskplatform.errors import NotFound

router = APIRouter()


@route(router, "GET", "/v1/tasks", shows=Tasks)
async def list_tasks(services: Here, _caller: Reader) -> Response:
    """List the tasks that workers have announced, with the schema of their parameters."""
    return answer(Tasks(tasks=[task_view(task) for task in await services.catalogue.tasks()]))


@route(router, "GET", "/v1/key", shows=KeyView)
async def get_key(caller: Reader) -> Response:
    """Show the API key of this request: whose it is, and what it may do.

    `Tp-Partition` names its tenant in a way that says nothing of it, for caches that keep tenants apart.
    """
    partition = hashlib.sha256(f"partition\0{caller.tenant}".encode()).hexdigest()
    view = KeyView(id=caller.id, tenant=caller.tenant, name=caller.name, scopes=sorted(caller.scopes))
    return answer(view, headers={"cache-control": "no-store", "tp-partition": partition})


@route(router, "GET", "/livez", shows=Health)
async def livez(services: Here) -> Response:
    """Say that this process runs; 503 when its event loop is so late that a restart would help. It asks nobody."""
    faint = services.pulse.faint
    return answer(Health(status="stuck" if faint else "ok"), status=503 if faint else 200)


@route(router, "GET", "/readyz", shows=Readiness)
async def readyz(services: Here) -> Response:
    """Say whether this process can do its work.

    `degraded` takes jobs, which wait; `unavailable` (503) takes none; `leaving` (503) stops soon, and still serves.
    """
    store = not services.detour.open and await services.condition.store()
    broker = services.condition.broker
    status = "ready" if store and broker else "degraded" if store or broker else "unavailable"
    if services.condition.leaving:
        status = "leaving"
    view = Readiness(
        status=status,
        store="ok" if store else "away",
        broker="ok" if broker else "away",
        cache=services.condition.cache,
    )
    return answer(view, status=200 if status in ("ready", "degraded") else 503)


@route(router, "GET", "/startupz", shows=Health)
async def startupz(services: Here) -> Response:
    """Say whether this process has reached the store since it started; 503 until then."""
    started = services.condition.started or await services.condition.store()
    return answer(Health(status="ok" if started else "starting"), status=200 if started else 503)


@route(router, "GET", "/metrics", shows=None)
async def metrics(request: Request, services: Here) -> Response:
    """Give this process's metrics to Prometheus, as text or OpenMetrics; 404 where several processes share the port."""
    if services.settings.api_processes > 1:
        raise NotFound("each of the processes behind this port shows its metrics on a port of its own")
    text, kind = services.metrics.render(request.headers.get("accept", ""))
    return Response(text, media_type=kind)


@route(router, "GET", "/problems/{code}", shows=None)
async def explain_problem(code: str) -> Response:
    """Explain a type of problem."""
    kind = KINDS.get(code)
    if kind is None:
        raise NotFound
    again = "The same request may pass later." if kind.retryable else "The same request will not pass later."
    text = f"{code} (HTTP status {kind.status}): {kind.title}\n\n{kind.explained}\n{again}\n"
    return Response(text, media_type="text/plain; charset=utf-8")
