"""Starts one worker process: `python -m workers`, with settings from the environment."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
from typing import Any

from celery import signals

from taskplatform.errors import SettingsError
from taskplatform.settings import load
from taskplatform.telemetry import configure_logging
from taskplatform.topology import work_queues
from workers.app import new_app
from workers.registry import register_tasks
from workers.remote import RemoteStep
from workers.steps import EndpointStep, ParentStep

_LAST_SECONDS = 3.0


def main() -> int:
    """Run until a signal ends it; gives the exit status."""
    try:
        settings = load()
        settings.signing_secrets()
        app = new_app(settings)
        app.registry = register_tasks(app)
    except SettingsError as error:
        sys.stderr.write(f"taskplatform worker: {error}\n")
        return 2
    configure_logging(settings.log_level, settings.log_format, "worker")
    signals.setup_logging.connect(_leave_logging_alone, weak=False)
    app.steps["worker"].update({ParentStep, EndpointStep, RemoteStep})
    # A new name with every start: the lease, and the control queue, belong to one process.
    name = f"{settings.worker_pool}@{socket.gethostname()}.{secrets.token_hex(4)}"
    worker = app.Worker(
        hostname=name,
        queues=work_queues(settings.worker_pool),
        concurrency=app.conf.worker_concurrency,
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        # The remote step does this, off the connection that jobs come by.
        without_heartbeat=True,
        task_events=False,
        quiet=True,
    )
    worker.start()
    _send_last_spans(worker)
    status = int(worker.exitcode or 0)
    if settings.worker_kind == "async":
        _leave_soon(status)
    return status


def _send_last_spans(worker: Any) -> None:
    # A worker that never came to its parts has none of this.
    tracer = getattr(getattr(worker, "metrics", None), "tracer", None)
    if tracer is not None:
        tracer.close()


def _leave_soon(status: int) -> None:
    # The interpreter waits for every thread that a job left behind in an executor, however long it takes.
    def leave() -> None:
        time.sleep(_LAST_SECONDS)
        os._exit(status)

    threading.Thread(target=leave, name="leave", daemon=True).start()


def _leave_logging_alone(**_: Any) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
