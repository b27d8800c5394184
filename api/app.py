"""Puts the HTTP service together: two hot routes on bare ASGI, FastAPI behind them, and what all answers share."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from api import jobs, letters, overview, pools, status
from api.batch import SubmitBatch
from api.cycle import CLOSE
from api.detour import MODE
from api.document import PUBLIC, document, page
from api.exchange import SECURITY_HEADERS, Endpoint
from api.own_port import own_port
from api.problems import CONTENT_TYPE, Problem, headers_of, problem, problem_of
from api.routes import Needs
from api.services import Services, new_services
from api.submit import SubmitOne
from api.trace import Traced, route_of
from api.views import encode
from taskplatform import freshness, settings, wiring
from taskplatform.broker.contract import Broker
from taskplatform.errors import InvalidInput, SettingsError, TaskplatformError
from taskplatform.metrics import Part
from taskplatform.probe import Probe
from taskplatform.settings import Settings
from taskplatform.strict_json import pointer
from taskplatform.telemetry import configure_logging, new_metrics


def create() -> ASGIApp:
    """Make the application from the process's environment."""
    loaded = settings.load()
    configure_logging(loaded.log_level, loaded.log_format, "api")
    app = create_app(loaded)
    # What a process is made of stays: to look all of it through for garbage would hold requests up for 20 ms and more.
    gc.collect()
    gc.freeze()
    return app


def create_app(loaded: Settings, *, broker: Broker | None = None) -> ASGIApp:
    """Make the application; `broker` defaults to the one that the settings name. Raises SettingsError."""
    measured = new_metrics(Part.API)
    tracer = measured.tracer = wiring.new_tracer(loaded, Part.API, measured)
    services = new_services(
        loaded,
        wiring.new_reading_store(loaded, Part.API),
        broker or wiring.new_broker(loaded),
        wiring.new_cache(loaded),
        measured,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with services.pulse.listening(), own_port(loaded, Probe(measured)):
            await services.start()
            try:
                yield
            finally:
                await services.stop()
                if tracer is not None:
                    await asyncio.to_thread(tracer.close)

    hot = {
        "/v1/jobs": Endpoint("/v1/jobs", SubmitOne(services)),
        "/v1/jobs:batch": Endpoint("/v1/jobs:batch", SubmitBatch(services)),
    }
    outside = _Outside(hot, _behind(services, lifespan), services)
    return outside if tracer is None else Traced(outside, tracer, measured)


def openapi() -> dict[str, Any]:
    """Write the OpenAPI document."""
    return document(_fastapi())


def _fastapi(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    for router in (jobs.router, letters.router, overview.router, pools.router, status.router):
        for found in router.routes:
            if isinstance(found, APIRoute) and found.path not in PUBLIC and not _is_guarded(found):
                raise SettingsError(f"the route {found.path} asks for no API key")
        app.include_router(router)
    return app


def _is_guarded(found: APIRoute) -> bool:
    return any(isinstance(needed.call, Needs) for needed in found.dependant.dependencies)


def _behind(services: Services, lifespan: Lifespan[FastAPI]) -> FastAPI:
    app = _fastapi(lifespan)
    app.state.services = services
    written = document(app)
    texts = {
        "/openapi.json": (msgspec.json.encode(written), "application/json"),
        "/docs": (page(written).encode(), "text/html; charset=utf-8"),
    }
    for path, (text, kind) in texts.items():
        app.add_route(path, _constant(text, kind), methods=["GET"], include_in_schema=False)
    app.add_exception_handler(TaskplatformError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(Exception, _refuse)
    return app


def _constant(text: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(text, media_type=kind, headers={"cache-control": "no-cache"})

    return answer


async def _refuse(_: Request, error: Exception) -> Response:
    return _response(problem_of(error))


async def _refuse_parameters(_: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    wrong = [(pointer(*one["loc"]), str(one["msg"])[:200]) for one in found]
    return _response(problem("invalid_input", "a parameter is malformed", wrong))


async def _refuse_route(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, HTTPException) else HTTPException(400)
    allowed = {method for method in (known.headers or {}).get("Allow", "").split(", ") if method}
    allowed |= _HOT_METHODS.get(request.url.path, set())
    if known.status_code in (404, 405) and allowed:
        return _response(problem("method_not_allowed"), {"allow": ", ".join(sorted(allowed))})
    return _response(problem("not_found" if known.status_code == 404 else "malformed_http"))


def _response(refusal: Problem, headers: Mapping[str, str] | None = None) -> Response:
    sent = {name.decode(): value.decode() for name, value in headers_of(refusal)} | {**(headers or {})}
    return Response(encode(refusal), refusal.status, sent, media_type=CONTENT_TYPE.decode())


def _is_kept(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    # What a cache may keep says nothing of this moment.
    return any(name == b"cache-control" and b"immutable" in value for name, value in headers)


_SEEN = freshness.HEADER.lower().encode()
_HOT_METHODS = {"/v1/jobs": {"POST"}, "/v1/jobs:batch": {"POST"}}


class _Outside:
    """Sends submissions to `hot` by path and the rest to `app`; counts, times, and adds what all answers have."""

    def __init__(self, hot: Mapping[str, ASGIApp], app: ASGIApp, services: Services) -> None:
        measured = services.metrics
        self._hot = hot
        self._app = app
        self._store = services.store
        self._detour = services.detour
        self._condition = services.condition
        self._counted = cache(lambda route, code: measured.http_requests_total.labels(route=route, status=str(code)))
        self._timed = cache(lambda route: measured.http_request_seconds.labels(route=route))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status_code = 500
        began = time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status_code
            if message["type"] == "http.response.start":
                status_code = message["status"]
                message["headers"] = [*message["headers"], *SECURITY_HEADERS]
                # A result too: who has seen it is not shown an older list. What a cache keeps of it is only older.
                message["headers"] += self._seen(scope)
                if self._detour.open and not _is_kept(message["headers"]):
                    message["headers"].append(MODE)
                if self._condition.leaving:
                    message["headers"].append(CLOSE)
            await send(message)

        hot = self._hot.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            await (hot or self._app)(scope, receive, answer)
        finally:
            path = route_of(scope)
            self._counted(path, status_code).inc()
            self._timed(path).observe(time.perf_counter() - began)

    def _seen(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        # Others' writes and reads are in it too: that costs a reader little, and no route can forget to tell.
        position = self._store.position
        if position is None:
            return []
        seen: freshness.Seen = {freshness.CLUSTER: position}
        with suppress(InvalidInput):
            for sent in (value for name, value in scope["headers"] if name == _SEEN):
                seen = freshness.joined(seen, freshness.read(sent.decode("latin-1")))
        return [(_SEEN, freshness.write(seen).encode())]
