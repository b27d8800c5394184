"""Runs a job in this process, with Celery's tracer where that is wanted; threads may share it."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from celery import Celery, signals
from celery import _state as celery_state
from celery.app.trace import build_tracer, setup_worker_optimizations
from celery.exceptions import Ignore, Reject

from taskplatform.job import Trouble
from taskplatform.task import CurrentJob, Desk, current_job, enter_job
from taskplatform.tracing import run_context
from workers.bodies import read_body
from workers.capture import CaptureBackend, Caught, caught_result
from workers.frames import JobFrame

# The stubs do not know it.
_state: Any = celery_state


_ENDED_OTHERWISE = Caught(
    trouble=Trouble.HOPELESS, message="the task ended without a result: it raised Ignore or Reject"
)
_HEARD_BY_TRACER = (
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_retry,
    signals.task_failure,
)


class Tracing:
    """Celery's tracers of all tasks, with a backend that keeps what they report.

    A task of the platform's own knows nothing of Celery: it goes without the tracer, which costs more than a short job,
    unless somebody listens to Celery's signals or the message asks for callbacks. `traced` says whether attempts have
    spans, `desk` takes the checkpoints of jobs.
    """

    def __init__(self, app: Celery, hostname: str, result_limit_bytes: int, desk: Desk, *, traced: bool) -> None:
        self._desk = desk
        self._traced = traced
        self._hostname = hostname
        self._result_limit_bytes = result_limit_bytes
        self._capture = CaptureBackend(app, result_limit_bytes)
        # A line per job would cost more than the job, and Celery's show arguments; the parent logs failures.
        logging.getLogger("celery.app.trace").setLevel(logging.CRITICAL)
        _state._set_task_join_will_block(True)
        setup_worker_optimizations(app, hostname)
        self._own = {name: task.run for name, task in app.tasks.items() if getattr(task, "spec", None) is not None}
        self._tracers: dict[str, Any] = {}
        for name, task in app.tasks.items():
            task.backend = self._capture
            self._tracers[name] = build_tracer(name, task, app.loader, hostname, app=app)

    def enter(self, job_id: UUID, attempt: int, tenant: str, trace: str | None) -> None:
        """Tell the code of a job which one it is, and in which context it runs."""
        if trace is not None and self._traced:
            trace = run_context(trace, job_id, attempt)
        enter_job(CurrentJob(id=job_id, attempt=attempt, tenant=tenant, trace=trace, desk=self._desk))

    def run(self, job: JobFrame) -> Caught:
        """Run a job; it may raise what the job raises, and the caller resets `current_job()`."""
        args, kwargs, embed = read_body(job.body)
        self.enter(UUID(job.id), job.attempt, job.tenant, job.trace)
        own = self._own.get(job.task)
        if own is None or any(signal.receivers for signal in _HEARD_BY_TRACER) or (embed and any(embed.values())):
            return self._trace(job, args, kwargs, embed)
        try:
            return caught_result(own(*args, **kwargs), self._result_limit_bytes)
        except (Ignore, Reject):
            return _ENDED_OTHERWISE

    def _trace(self, job: JobFrame, args: list[Any], kwargs: dict[str, Any], embed: dict[str, Any] | None) -> Caught:
        self._capture.take()
        request: dict[str, Any] = {
            "id": job.id,
            "task": job.task,
            "root_id": job.id,
            "correlation_id": job.id,
            "retries": job.failures,
            "timelimit": [job.hard_limit_seconds, job.soft_limit_seconds],
            "delivery_info": {"exchange": "", "routing_key": job.queue, "redelivered": False},
            "hostname": self._hostname,
            "is_eager": False,
            "args": args,
            "kwargs": kwargs,
            "argsrepr": "",
            "kwargsrepr": "",
        }
        trace = current_job().trace
        if trace is not None:
            request["traceparent"] = trace
        request.update(embed or {})
        self._tracers[job.task](job.id, args, kwargs, request)
        return self._capture.take() or _ENDED_OTHERWISE
