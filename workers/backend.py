"""Celery's result backend over the platform's store: AsyncResult of a job says what its row says."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from celery import states
from celery.backends.base import BaseBackend, SyncBackendMixin
from kombu.utils.json import loads

from taskplatform.job import State
from taskplatform.store.postgres.results import Standing, new_reader

_STATES = {
    State.SCHEDULED: states.PENDING,
    State.BLOCKED: states.PENDING,
    State.QUEUED: states.PENDING,
    State.RUNNING: states.STARTED,
    State.RETRYING: states.RETRY,
    State.SUCCEEDED: states.SUCCESS,
    State.DEAD: states.FAILURE,
    State.CANCELLED: states.REVOKED,
    State.EXPIRED: states.REVOKED,
}


class JobFailed(Exception):
    """A job did not succeed; the text is the message of its last error. The class that was raised is never imported."""


class ResultBackend(BaseBackend, SyncBackendMixin):
    """Reads results; what ends a job is written by the worker's parent, never through here."""

    persistent = False

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self._reader = new_reader(app.settings.cluster_dsns())

    def store_result(self, *args: Any, **options: Any) -> None:
        """Celery stores here what never becomes a job's outcome; the row is the only truth."""

    def process_cleanup(self) -> None:
        """Nothing is held between jobs."""

    def as_uri(self, include_password: bool = True) -> str:
        """Name it where Celery prints its configuration."""
        return "taskplatform"

    def get_result(self, task_id: str) -> Any:
        """Give the result, or the error as an exception."""
        return self.get_task_meta(task_id).get("result")

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        try:
            standing = self._reader.standing(UUID(task_id))
        except ValueError:
            standing = None
        if standing is None:
            return {"task_id": task_id, "status": states.PENDING, "result": None}
        return {"task_id": task_id, **_meta(standing)}

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        self._reader.close()

    def _forget(self, task_id: str) -> None:
        """Retention forgets jobs; a caller cannot."""


def _meta(standing: Standing) -> dict[str, Any]:
    status = _STATES[standing.state]
    meta: dict[str, Any] = {
        "status": status,
        "result": None,
        "traceback": None,
        "children": [],
        "name": standing.task,
        "retries": standing.failures,
        "date_done": standing.ended_at,
    }
    if status == states.SUCCESS:
        meta["result"] = None if standing.result is None else loads(standing.result)
    elif status in (states.FAILURE, states.RETRY):
        error = msgspec.json.decode(standing.error) if standing.error else {}
        meta["result"] = JobFailed(f"{error.get('type') or error.get('trouble')}: {error.get('message', '')}")
        meta["traceback"] = error.get("traceback")
    elif status == states.REVOKED:
        meta["result"] = JobFailed(str(standing.state))
    return meta
