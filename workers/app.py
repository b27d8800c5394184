"""The Celery app: its settings, the tasks it knows, and producers whose messages are signed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from types import MappingProxyType, ModuleType
from typing import Any, NoReturn
from uuid import UUID

from celery import Celery, Task
from celery.app.amqp import AMQP
from celery.exceptions import Retry as RetrySignal
from kombu import Exchange, Queue
from kombu.utils.json import dumps

from taskplatform.errors import InvalidInput
from taskplatform.ids import SHARDS, Locator, new_job_id
from taskplatform.job import Priority
from taskplatform.payload import CONTENT_ENCODING, CONTENT_TYPE, SIGNATURE_HEADER, VERSION_HEADER, sign
from taskplatform.settings import Settings, load
from taskplatform.task import import_modules
from taskplatform.topology import pool_of, queues, work_queue

# The stubs know few of its attributes.
_AMQP: Any = AMQP

_VISIBILITY_SECONDS = 60
_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "task_protocol": 2,
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": False,
        "task_track_started": False,
        "task_send_sent_event": False,
        "task_publish_retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
        "broker_connection_retry_on_startup": True,
        "broker_connection_retry": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": 3,
        "broker_heartbeat": 10,
        "broker_native_delayed_delivery_queue_type": "quorum",
        "worker_prefetch_multiplier": 2,
        "worker_enable_prefetch_count_reduction": False,
        # Celery's own requests, of which there are none here; unset, it would warn at every reconnect.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_detect_quorum_queues": True,
        "worker_send_task_events": False,
        "worker_enable_remote_control": True,
        "worker_disable_rate_limits": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_consumer": "workers.consumer:HotConsumer",
        "result_backend": "workers.backend:ResultBackend",
        "enable_utc": True,
        "timezone": "UTC",
    }
)
_AMQP_OPTIONS: Mapping[str, Any] = MappingProxyType({"confirm_publish": True, "read_timeout": 10, "write_timeout": 10})
_REDIS_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {"visibility_timeout": _VISIBILITY_SECONDS, "queue_order_strategy": "priority", "socket_timeout": 10}
)


class PlatformTask(Task[Any, Any]):
    """A Celery task whose `retry` ends the attempt; the platform starts the next one."""

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: Exception | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> NoReturn:
        """Ask for another attempt, by default after `default_retry_delay` seconds.

        Raises `exc`, or MaxRetriesExceededError, when `max_retries` are used up, and InvalidInput for other arguments
        than those of this attempt: a job keeps its own.
        """
        request: Any = self.request
        if request.called_directly:
            raise exc or RuntimeError("retry() was called outside of a worker")
        if (args is not None and list(args) != list(request.args)) or (kwargs is not None and kwargs != request.kwargs):
            raise InvalidInput("a retry keeps the arguments of its job: submit a new job instead")
        bound = self.max_retries if max_retries is None else max_retries
        if bound is not None and request.retries >= bound:
            if exc is not None:
                raise exc
            raise self.MaxRetriesExceededError(f"{self.name}[{request.id}] has used up its {bound} retries")
        wait = self.default_retry_delay if countdown is None else countdown
        if eta is not None:
            wait = max(eta.timestamp() - time.time(), 0.0)
        request.retry_after_seconds = float(wait)
        raise RetrySignal(exc=exc)


class SigningAMQP(_AMQP):
    """Celery's producer side, with every task message signed once its body is final."""

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()
        key = self.app.settings.signing_secrets()[0]

        def send_signed(producer: Any, name: str, message: Any, **options: Any) -> Any:
            headers, properties, body, sent_event = message
            headers.update(options.pop("headers", None) or {})
            for unwanted in ("serializer", "compression"):
                options.pop(unwanted, None)
            queue = options.get("queue") or options.get("routing_key")
            _address(headers, getattr(queue, "name", queue))
            final = dumps(body).encode()
            version = getattr(getattr(self.app.tasks.get(name), "spec", None), "version", 1)
            if version > 1:
                headers[VERSION_HEADER] = version
            headers[SIGNATURE_HEADER] = sign(headers, final, key)
            properties = {
                **properties,
                "content_type": CONTENT_TYPE,
                "content_encoding": CONTENT_ENCODING,
                "message_id": headers["id"],
                "type": name,
            }
            return send(producer, name, (headers, properties, final, sent_event), **options)

        return send_signed


class PlatformApp(Celery):
    """A Celery app that carries the platform's settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry: Any = None
        super().__init__(
            "taskplatform", amqp="workers.app:SigningAMQP", task_cls="workers.app:PlatformTask", set_as_current=True
        )
        self.conf.update(_configuration(settings))
        self.set_default()

    def send_task(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Send a task under an id of this platform, so that it is listed by its time like any other job.

        Raises InvalidInput for a `task_id` that is no UUID: nothing could be recorded under it.
        """
        return super().send_task(name, *arguments, **{**options, "task_id": self._job_id(options.get("task_id"))})

    def _job_id(self, chosen: object) -> str:
        if chosen is None:
            return str(new_job_id(Locator(region=self.settings.region, shard=secrets.randbelow(SHARDS))))
        try:
            return str(UUID(str(chosen)))
        except ValueError:
            raise InvalidInput(f"task_id must be a UUID, not {chosen!r}", code="invalid_id") from None


def new_app(settings: Settings) -> PlatformApp:
    """Make the app of a worker or of a program that calls `delay()`; connects to nothing yet."""
    return PlatformApp(settings)


def import_tasks(app: PlatformApp) -> list[ModuleType]:
    """Import the modules that the settings name, for the tasks in them. Raises SettingsError."""
    return import_modules(app.settings.task_modules)


@cache
def _app_of_the_environment() -> PlatformApp:
    return new_app(load())


def __getattr__(name: str) -> Any:
    # `from workers.app import app` serves producers and the celery command, and reads the environment only then.
    if name in ("app", "celery"):
        return _app_of_the_environment()
    raise AttributeError(name)


def _configuration(settings: Settings) -> dict[str, Any]:
    url = settings.broker_url.get_secret_value()
    amqp = url.startswith("amqp")
    pools = dict.fromkeys([*settings.pools, settings.worker_pool])
    default = work_queue(next(iter(pools)), Priority.NORMAL)
    exchange = Exchange("", type="direct")
    return {
        **_SETTINGS,
        "broker_url": url,
        "broker_transport": "workers.transport:AmqpTransport" if amqp else "workers.redis_transport:RedisTransport",
        "broker_transport_options": dict(_AMQP_OPTIONS if amqp else _REDIS_OPTIONS),
        "task_queues": [
            Queue(one.name, exchange, routing_key=one.name, queue_arguments=dict(one.arguments))
            for one in queues(pools)
        ],
        "task_default_queue": default,
        "task_default_exchange": "",
        "task_default_routing_key": default,
        "task_routes": [_Route(frozenset(pools))],
        **_pool(settings),
    }


def _pool(settings: Settings) -> dict[str, Any]:
    if settings.worker_kind == "async":
        return {"worker_pool": "workers.asyncpool:AsyncPool", "worker_concurrency": settings.worker_concurrency_jobs}
    return {"worker_pool": "workers.prefork:ChunkPool", "worker_concurrency": settings.worker_processes}


class _Route:
    def __init__(self, pools: frozenset[str]) -> None:
        self._pools = pools

    def __call__(self, name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **rest: Any) -> Any:
        spec = getattr(task, "spec", None)
        if options.get("queue") or spec is None or spec.pool not in self._pools:
            return None
        return {"queue": work_queue(spec.pool, spec.priority)}


def _address(headers: dict[str, Any], queue: str | None) -> None:
    pool, priority = "default", Priority.NORMAL
    if queue:
        with suppress(InvalidInput, ValueError):
            pool, priority = pool_of(queue), Priority(queue.rpartition(".")[2])
    headers.setdefault("tp-tenant", "default")
    headers["tp-pool"] = pool
    headers["tp-priority"] = str(priority)
    for name in ("eta", "expires"):
        if headers.get(name):
            moment = datetime.fromisoformat(headers[name])
            headers[name] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
