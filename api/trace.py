"""Makes every request a part of a trace: its own span, and the context in which everything goes on that it starts."""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskplatform.payload import trace_of
from taskplatform.telemetry import Metrics
from taskplatform.tracing import Serving, Tracer, is_kept, trace_id_of

_HEADER = b"traceparent"
_UNSEEN = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})


class Traced:
    """Passes requests on to `app` as a proxy would that takes part in the trace: with a `traceparent` of its own."""

    def __init__(self, app: ASGIApp, tracer: Tracer, metrics: Metrics) -> None:
        self._app = app
        self._tracer = tracer
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request within a span; those of probes have none."""
        if scope["type"] != "http" or scope["path"] in _UNSEEN:
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(_HEADER, b"").decode("latin-1")
        serving = self._tracer.serve(scope["method"], trace_of(sent))
        others = [(name, value) for name, value in scope["headers"] if name != _HEADER]
        inner = {**scope, "headers": [*others, (_HEADER, serving.traceparent.encode())]}
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        try:
            with structlog.contextvars.bound_contextvars(trace_id=trace_id_of(serving.traceparent)):
                await self._app(inner, receive, answer)
        finally:
            self._end(serving, inner, status, time.perf_counter() - began)

    def _end(self, serving: Serving, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        serving.end(route, status)
        if is_kept(serving.traceparent):
            self._metrics.http_request_seconds.labels(route=route).point(seconds, serving.traceparent)


def route_of(scope: Scope) -> str:
    """Name the template of the route that answered, "other" where none did."""
    return str(scope.get("tp_route") or getattr(scope.get("route"), "path", "other"))
