"""Adds routes to the part of the API that FastAPI serves: each says what key it needs, and what it answers with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Request, Response

from api import views
from api.services import Services
from taskplatform import freshness
from taskplatform.auth import ApiKey, Scope
from taskplatform.freshness import CLUSTER, LATEST, START, Position


class Needs:
    """The dependency of a route on an API key with a scope; gives the key."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> ApiKey:
        """Raise NotAuthenticated or NotAllowed for whoever may not pass."""
        header = request.headers.get("authorization")
        sent = None if header is None else header.encode("latin-1")
        return await services_of(request).keys.admit(sent, self.scope)


def seen_by(
    tp_seen: Annotated[
        str | None,
        Header(max_length=8192, description="The `Tp-Seen` of the last answer: nothing older than that is shown."),
    ] = None,
) -> Position:
    """Tell how far the caller has seen: it may have seen anything where it does not say. Raises InvalidInput."""
    return LATEST if tp_seen is None else freshness.read(tp_seen).get(CLUSTER, START)


def services_of(request: Request) -> Services:
    """Give the parts of this process."""
    services: Services = request.app.state.services
    return services


Here = Annotated[Services, Depends(services_of)]
Seen = Annotated[Position, Depends(seen_by)]
"""What a route's parameter is annotated with: how far the caller has seen."""
Reader = Annotated[ApiKey, Depends(Needs(Scope.READ))]
Canceller = Annotated[ApiKey, Depends(Needs(Scope.CANCEL))]
Replayer = Annotated[ApiKey, Depends(Needs(Scope.REPLAY))]
Watcher = Annotated[ApiKey, Depends(Needs(Scope.WATCH))]
"""What a route's parameter is annotated with: the API key with that scope."""


def answer(view: msgspec.Struct, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a view; it is not kept by anybody unless `headers` say so."""
    kept = {"cache-control": "no-store"} if headers is None else headers
    return Response(views.encode(view), status, {**kept}, media_type="application/json")


def route(
    router: APIRouter, method: str, path: str, *, shows: type[msgspec.Struct] | None, status: int = 200, also: str = ""
) -> Callable[[Callable[..., Awaitable[Response]]], Callable[..., Awaitable[Response]]]:
    """Register an endpoint that answers with `shows`; its docstring becomes the description."""

    def register(endpoint: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
        content: dict[str, Any] = {}
        if shows is not None:
            content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{shows.__name__}"}}}
        responses: dict[int | str, dict[str, Any]] = {status: {"description": "As asked.", "content": content}}
        if also:
            responses[304] = {"description": also}
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            responses=responses,
            status_code=status,
            response_class=Response,
            response_model=None,
            operation_id=endpoint.__name__,
        )
        return endpoint

    return register
