"""The only place that chooses implementations; each is imported where it is built, so nobody loads another's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from taskplatform.errors import SettingsError
from taskplatform.settings import Settings

if TYPE_CHECKING:
    from taskplatform.archive.contract import Objects
    from taskplatform.autoscale.contract import Driver, ScaleStore
    from taskplatform.broker.contract import Broker
    from taskplatform.cache.contract import Cache
    from taskplatform.metrics import Part
    from taskplatform.store.postgres.store import PostgresStore
    from taskplatform.store.sharded import ShardedStore
    from taskplatform.telemetry import Metrics
    from taskplatform.tracing import Tracer


def new_tracer(settings: Settings, part: Part, metrics: Metrics) -> Tracer | None:
    """Make what takes the spans of a process; None where nothing is traced. Raises SettingsError without the extra."""
    if not settings.trace_url:
        return None
    try:
        from taskplatform.otel import new_tracer
    except ImportError as error:
        raise SettingsError(f"trace_url is set, and the extra taskplatform[otel] is not installed: {error}") from None
    return new_tracer(settings, part, metrics)


def new_store(settings: Settings, part: Part | None = None) -> PostgresStore | ShardedStore:
    """Make the store of a service that asks the primary alone; `open` connects it. Raises SettingsError.

    The sessions of a service that says which `part` it is tell Postgres so.
    """
    return _new_store(settings, (), part)


def new_reading_store(settings: Settings, part: Part | None = None) -> PostgresStore | ShardedStore:
    """Make the store of a service that also reads from replicas, where there are any. Raises SettingsError."""
    return _new_store(settings, settings.replica_dsns(), part)


def _new_store(settings: Settings, replicas: Sequence[str], part: Part | None) -> PostgresStore | ShardedStore:
    from taskplatform.store.postgres.conninfo import named
    from taskplatform.store.postgres.store import PostgresStore

    lifetime = settings.key_lifetime_seconds
    dsns = [dsn if part is None else named(dsn, part) for dsn in settings.cluster_dsns()]
    if len(dsns) == 1:
        return PostgresStore(dsns[0], key_lifetime_seconds=lifetime, replicas=replicas)
    from taskplatform.store.sharded import ShardedStore

    return ShardedStore(
        [
            PostgresStore(dsn, key_lifetime_seconds=lifetime, replicas=() if number else replicas, cluster=number)
            for number, dsn in enumerate(dsns)
        ]
    )


def new_broker(settings: Settings) -> Broker:
    """Make the broker that the URL's scheme names. Raises SettingsError for one that nobody drives."""
    url = settings.broker_url.get_secret_value()
    scheme = url.partition("://")[0]
    timeout = settings.publish_timeout_seconds
    if scheme in ("amqp", "amqps"):
        from taskplatform.broker.rabbitmq import RabbitMQBroker

        return RabbitMQBroker(url.split(";"), publish_timeout_seconds=timeout)
    if scheme in ("redis", "rediss"):
        from taskplatform.broker.redis import RedisBroker

        return RedisBroker(url, publish_timeout_seconds=timeout)
    raise SettingsError(f"broker_url: expected amqp://, amqps://, redis:// or rediss://, not {scheme}://")


def new_cache(settings: Settings) -> Cache | None:
    """Make the cache that the settings name, if they name one. Raises SettingsError."""
    url = settings.cache_url.get_secret_value()
    if not url:
        return None
    from taskplatform.cache.redis import RedisCache

    return RedisCache(url, answer_seconds=settings.cache_answer_seconds)


def new_objects(settings: Settings, *, create: bool = False) -> Objects | None:
    """Open the object store of the archive, if the settings name one; `create` makes a folder. Raises SettingsError."""
    if not settings.archive_url:
        return None
    try:
        from taskplatform.archive.objects import UrlObjects
    except ImportError as error:
        raise SettingsError(
            f"archive_url is set, and the extra taskplatform[archive] is not installed: {error}"
        ) from None
    return UrlObjects(settings.archive_url, create=create)


def new_driver(settings: Settings, store: ScaleStore) -> Driver:
    """Make what starts and stops workers. Raises SettingsError when the settings name none, or half of one."""
    grace = settings.worker_drain_seconds
    match settings.autoscale_driver:
        case "process":
            from taskplatform.autoscale.drivers.process import Processes

            return Processes(settings, settings.data_dir.absolute() / "workers", grace_seconds=grace)
        case "docker":
            from taskplatform.autoscale.drivers.docker import Containers

            if settings.autoscale_agent_token is None:
                raise SettingsError("autoscale_agent_token is not set: the agent lets nobody in without it")
            token = settings.autoscale_agent_token.get_secret_value()
            return Containers(
                settings.autoscale_agent_url, token, service=settings.autoscale_service, grace_seconds=grace
            )
        case "kubernetes":
            from taskplatform.autoscale.drivers.kubernetes import Pods

            return Pods(deployment=settings.autoscale_service)
        case "keda":
            from taskplatform.autoscale.drivers.announced import Announced

            return Announced(store)
    raise SettingsError("autoscale_driver is none: set it to process, docker, kubernetes or keda")
