"""What the routes share in one process: the store, the broker, the intake and what remembers for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol

from api.clusters import Detours, Intakes
from api.condition import Condition
from api.detour import Detour
from api.farewell import on_stop
from api.pages import Pages
from api.waiting import Waiter
from taskplatform.access import Keys
from taskplatform.autoscale.contract import ScaleStore
from taskplatform.broker.contract import Broker
from taskplatform.cache.contract import Cache
from taskplatform.catalogue import Catalogue
from taskplatform.counting import Counting
from taskplatform.errors import StoreUnavailable
from taskplatform.intake import Intake
from taskplatform.lookups import Cached, Direct, Lookups, Source
from taskplatform.publish import Publisher
from taskplatform.pulse import Pulse
from taskplatform.retention_rules import policy_of
from taskplatform.settings import Settings
from taskplatform.store.contract import IntakeStore, OperateStore, TaskStore
from taskplatform.store.sharded import ShardedStore
from taskplatform.store.watching import WatchStore
from taskplatform.telemetry import Metrics, logger


class Store(TaskStore, Source, OperateStore, ScaleStore, WatchStore, Protocol):
    """What the API asks of a store."""

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Close all connections."""


class SoleStore(Store, IntakeStore, Protocol):
    """A store of one cluster, which takes jobs in itself."""


def utc_now() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of one API process."""

    settings: Settings
    store: Store
    broker: Broker
    metrics: Metrics
    intake: Intake | Intakes
    detour: Detour | Detours
    catalogue: Catalogue
    keys: Keys
    cache: Cache | None
    lookups: Lookups
    waiter: Waiter
    pages: Pages
    pulse: Pulse
    condition: Condition
    counting: Counting
    retention: timedelta
    """How long the rows of ended jobs are kept at least."""
    now: Callable[[], datetime] = utc_now

    async def start(self) -> None:
        """Connect; a part that is away is no error here, each request says so."""
        on_stop(self._leave, self.settings.api_drain_seconds)
        await self.store.open()
        await self.broker.start()
        if self.cache is not None:
            await self.cache.start()
        try:
            await self.catalogue.refresh()
        except StoreUnavailable as error:
            logger("api").warning("Started without the store", trouble=str(error))

    def _leave(self) -> None:
        self.condition.leaving = True
        # A long wait must not hold up the stop.
        self.waiter.dismiss()

    async def stop(self) -> None:
        """Send waiting callers away, store and publish what was taken, and disconnect."""
        await self.waiter.stop()
        await self.counting.stop()
        await self.detour.stop()
        await self.intake.stop()
        await self.broker.stop()
        if self.cache is not None:
            await self.cache.stop()
        await self.store.close()


def new_services(
    settings: Settings, store: SoleStore | ShardedStore, broker: Broker, cache: Cache | None, metrics: Metrics
) -> Services:
    """Put the parts together. Raises SettingsError when there is no signing key, or for a bad retention file."""
    catalogue = Catalogue(store)
    retention = policy_of(settings).shortest
    publisher = Publisher(broker, settings.signing_secrets()[0], metrics, catalogue.bundle_jobs)
    members: Sequence[IntakeStore] = store.clusters.members if isinstance(store, ShardedStore) else [store]
    intakes = [Intake(member, broker, publisher, settings) for member in members]
    detours = [
        Detour(intake, member, broker, publisher, catalogue, component=f"writes-{number}" if number else "writes")
        for number, (member, intake) in enumerate(zip(members, intakes, strict=True))
    ]
    return Services(
        settings=settings,
        store=store,
        broker=broker,
        metrics=metrics,
        intake=Intakes(store.clusters, intakes) if isinstance(store, ShardedStore) else intakes[0],
        detour=Detours(store.clusters, detours, Random()) if isinstance(store, ShardedStore) else detours[0],
        catalogue=catalogue,
        keys=Keys(store),
        cache=cache,
        lookups=Direct(store) if cache is None else Cached(store, cache, metrics, retention=retention),
        waiter=Waiter(store),
        pages=Pages(settings.signing_secrets()[0]),
        pulse=Pulse(metrics),
        condition=Condition(_question(store), broker, metrics, cache=cache),
        counting=Counting(store),
        retention=retention,
    )


def _question(store: Store) -> Callable[[], Awaitable[object]]:
    # Of several clusters one is enough: the others' jobs are not served by sending callers elsewhere.
    return store.answer if isinstance(store, ShardedStore) else lambda: store.key("ready")
