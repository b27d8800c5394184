"""Boot steps of the worker: its parent, and the endpoint for metrics and readiness."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

from celery import bootsteps

from taskplatform.metrics import Part
from taskplatform.settings import Settings
from taskplatform.shards import Homes
from taskplatform.store.postgres.conninfo import named
from taskplatform.store.postgres.maps import learn
from taskplatform.store.postgres.raw import RawConnection
from taskplatform.telemetry import logger, new_metrics
from taskplatform.wiring import new_tracer
from workers.checkpoints import Checkpoints
from workers.cluster import Cluster
from workers.events import Events
from workers.held import Limits
from workers.link import Link
from workers.loop import Loop
from workers.pace import CHUNK_JOBS
from workers.parent import Parent, Parts
from workers.pipeline import Pipeline
from workers.spans import Spans

_MAP_PAUSE_SECONDS = 0.5

_log = logger(__name__)


class ParentStep(bootsteps.Step):
    """Makes the parent before the consumer starts; `registry` is what the worker can run."""

    requires = ("celery.worker.components:Pool",)

    def create(self, w: Any) -> None:
        """Put the parts together; nothing is connected yet."""
        app = w.app
        settings = app.settings
        clusters, homes = _clusters(settings, w.pool.loop)
        w.metrics = new_metrics(Part.WORKER, pool=settings.worker_pool)
        tracer = w.metrics.tracer = new_tracer(settings, Part.WORKER, w.metrics)
        w.parent = Parent(
            Parts(
                settings=settings,
                name=w.hostname,
                registry=app.registry,
                pipeline=Pipeline(w.hostname, _limits(app), app.registry.traits, Random(), homes),
                pool=w.pool,
                clusters=clusters,
                checkpoints=Checkpoints(clusters, homes),
                metrics=w.metrics,
                events=Events(settings.monitor_jobs_per_second, show_arguments=settings.monitor_arguments),
                spans=None if tracer is None else Spans(tracer, w.metrics),
            )
        )


def _clusters(settings: Settings, loop: Loop) -> tuple[list[Cluster], Homes | None]:
    dsns = settings.cluster_dsns()
    homes = Homes(len(dsns)) if len(dsns) > 1 else None
    while homes is not None and not homes.version:
        learn(dsns, homes)
        if not homes.version:
            _log.warning("no Postgres cluster tells the shard map, will ask again")
            time.sleep(_MAP_PAUSE_SECONDS)
    numbers = [None] if homes is None else range(len(dsns))
    connects = [
        partial(RawConnection, named(dsn, Part.WORKER), number) for number, dsn in zip(numbers, dsns, strict=True)
    ]
    seconds = settings.lease_seconds
    return [Cluster(number, Link(loop, connect), seconds, homes) for number, connect in enumerate(connects)], homes


def _limits(app: Any) -> Limits:
    settings = app.settings
    slots = app.conf.worker_concurrency
    asynchronous = settings.worker_kind == "async"
    return Limits(
        processes=slots,
        # A quarter ahead of what runs: those start while the next turn is on its way.
        window_jobs=max(settings.claim_window_jobs, slots + slots // 4) if asynchronous else settings.claim_window_jobs,
        window_seconds=settings.claim_window_seconds,
        crash_limit=settings.crash_limit,
        chunk_jobs=1 if asynchronous else CHUNK_JOBS,
    )


class EndpointStep(bootsteps.StartStopStep):
    """Serves `/metrics`, `/livez`, `/readyz` and `/startupz` on the metrics port, where one is set."""

    requires = (ParentStep,)

    def include_if(self, w: Any) -> bool:
        """Tell whether a port is set."""
        return bool(w.app.settings.metrics_port)

    def start(self, w: Any) -> None:
        """Listen, in a thread of its own."""
        settings = w.app.settings
        self._server = ThreadingHTTPServer((settings.metrics_host, settings.metrics_port), _handler(w))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def stop(self, w: Any) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def terminate(self, w: Any) -> None:
        """Stop listening."""
        self.stop(w)


def _handler(worker: Any) -> type[BaseHTTPRequestHandler]:
    pages: dict[str, tuple[str, Callable[[], bool]]] = {
        "/livez": ("alive", lambda: worker.parent.alive),
        "/readyz": ("ready", lambda: worker.parent.ready),
        "/startupz": ("started", lambda: worker.parent.begun),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                text, kind = worker.metrics.render(self.headers.get("Accept", ""))
                self._answer(200, kind, text)
            elif self.path in pages:
                word, so = pages[self.path]
                self._say(word, so())
            else:
                self._answer(404, "text/plain", b"not found\n")

        def _say(self, word: str, so: bool) -> None:
            self._answer(200 if so else 503, "text/plain", f"{word}\n".encode() if so else f"not {word}\n".encode())

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            _log.debug("a probe was answered", path=self.path)

    return Handler
