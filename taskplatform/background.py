"""The dispatcher process: every background role over one store and one broker, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from taskplatform.archive.writer import Archive
from taskplatform.broker.contract import Broker
from taskplatform.declarations import Declarations
from taskplatform.dispatcher import Dispatcher
from taskplatform.expirer import Expirer
from taskplatform.metrics import Part
from taskplatform.playing import play, stop_by_signal
from taskplatform.publish import Publisher
from taskplatform.relay import Relay, StrandedRelay
from taskplatform.rescuer import Rescuer
from taskplatform.retention import Retention
from taskplatform.retention_rules import policy_of
from taskplatform.service import Role
from taskplatform.settings import Settings
from taskplatform.store.clusters import Cluster
from taskplatform.store.sharded import ShardedStore
from taskplatform.telemetry import Metrics, configure_logging, new_metrics
from taskplatform.undertaker import Undertaker
from taskplatform.wiring import new_broker, new_objects, new_store, new_tracer


async def run_dispatcher(settings: Settings) -> None:
    """Run all roles until SIGTERM or SIGINT; returns when every round that had begun is over.

    Raises SettingsError when no signing key is set, and OSError when the metrics port is taken.
    """
    configure_logging(settings.log_level, settings.log_format, Part.DISPATCHER)
    stop = stop_by_signal()
    async with AsyncExitStack() as stack:
        store = new_store(settings, Part.DISPATCHER)
        await store.open()
        stack.push_async_callback(store.close)
        broker = new_broker(settings)
        await broker.start()
        stack.push_async_callback(broker.stop)
        await dispatch(settings, store, broker, stop)


async def dispatch(settings: Settings, store: Cluster | ShardedStore, broker: Broker, stop: asyncio.Event) -> None:
    """Run all roles over a store and a broker that are there, until `stop` is set."""
    metrics = new_metrics(Part.DISPATCHER)
    tracer = metrics.tracer = new_tracer(settings, Part.DISPATCHER, metrics)
    metrics.mode.labels(component="broker").set_function(lambda: float(not broker.connected))
    try:
        await play(new_roles(settings, store, broker, metrics), settings, metrics, stop)
    finally:
        if tracer is not None:
            await asyncio.to_thread(tracer.close)


def new_roles(settings: Settings, store: Cluster | ShardedStore, broker: Broker, metrics: Metrics) -> list[Role]:
    """Make every role of the process.

    Raises SettingsError when no signing key is set, and for a bad retention file or archive URL.

    Each of several clusters has roles of its own, so that one in trouble holds up no other's jobs; the broker's dead
    letters are buried by one for all.
    """
    policy, objects = policy_of(settings), new_objects(settings, create=True)
    key, declarations = settings.signing_secrets()[0], Declarations(store, metrics)
    publish = Publisher(broker, key, metrics, declarations.bundle_jobs)
    clusters: Sequence[Cluster] = store.clusters.members if isinstance(store, ShardedStore) else [store]
    roles: list[Role] = [declarations, Undertaker(store, broker, Publisher(broker, key, metrics), settings)]
    for number, cluster in enumerate(clusters):
        of_cluster = (
            Dispatcher(cluster, broker, publish, settings),
            Relay(cluster, broker, publish, settings),
            StrandedRelay(cluster, broker, publish, settings),
            Rescuer(cluster, metrics, settings),
            Expirer(cluster, metrics, settings),
            Retention(cluster, metrics, policy, None if objects is None else Archive(objects, number, metrics)),
        )
        roles += [role.of_cluster(number) for role in of_cluster]
    return roles
