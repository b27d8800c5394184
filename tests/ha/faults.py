"""What may happen to a part of the highly available platform, how it is healed, and how long it may be felt."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.ha.servers import HaServers
from tests.ha.stack import HaStack

_QUEUE = "jobs.default.normal"
_SUPERVISOR_SECONDS = 1.0
"""After which a supervisor has started again what has died."""

Act = Callable[[HaServers, HaStack], None]
Heal = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The longest interruptions in seconds that are allowed: of submits with and without a key, starts and reads."""

    keyed: float = 3.0
    unkeyed: float = 3.0
    starts: float = 5.0
    reads: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: `strike` does it and gives what heals it, which is done after so many seconds.

    Jobs are read through the cache where the fault is the cache's; elsewhere it would hide what the store does. In a
    `sharded` run they live in two clusters, of which the second one may fail.
    """

    name: str
    strike: Callable[[HaServers, HaStack], Heal]
    heal_after_seconds: float
    bounds: Bounds
    cached: bool = False
    sharded: bool = False


def _nothing() -> None:
    """Patroni starts again what it runs."""


def _kill_primary(servers: HaServers, _: HaStack) -> Heal:
    servers.postgres.await_primary().kill_postgres()
    return _nothing


def _kill_patroni_and_primary(servers: HaServers, _: HaStack) -> Heal:
    primary = servers.postgres.await_primary()
    primary.kill()
    return primary.begin


def _fence_primary_machine(servers: HaServers, _: HaStack) -> Heal:
    primary = servers.postgres.await_primary()
    primary.kill()
    # As an agent does that has switched the machine off: nobody needs to wait until its lease has run out.
    servers.postgres.end_lease()
    return primary.begin


def _lose_standby(servers: HaServers, _: HaStack) -> Heal:
    standby = servers.postgres.standby()
    standby.kill()
    return standby.begin


def _freeze_primary(servers: HaServers, _: HaStack) -> Heal:
    primary = servers.postgres.await_primary()
    primary.freeze()
    return primary.thaw


def _lose_etcd(servers: HaServers, _: HaStack) -> Heal:
    servers.postgres.etcd.kill()
    return servers.postgres.etcd.start


def _lose_cluster(servers: HaServers, _: HaStack) -> Heal:
    servers.second_postgres.kill()
    return servers.second_postgres.start


def _kill_broker_leader(servers: HaServers, stack: HaStack) -> Heal:
    leader = servers.rabbitmq.leader(stack.home.name, _QUEUE)
    leader.kill()
    return leader.begin


def _kill_two_brokers(servers: HaServers, stack: HaStack) -> Heal:
    leader = servers.rabbitmq.leader(stack.home.name, _QUEUE)
    other = next(node for node in servers.rabbitmq.nodes if node is not leader)
    killed = (leader, other)
    for node in killed:
        node.kill()

    def revive() -> None:
        for node in killed:
            node.begin()

    return revive


def _kill_all_brokers(servers: HaServers, _: HaStack) -> Heal:
    for node in servers.rabbitmq.nodes:
        node.process.kill()
    return servers.rabbitmq.begin


def _kill_cache(servers: HaServers, _: HaStack) -> Heal:
    servers.redis.kill()
    return servers.redis.start


def _freeze_cache(servers: HaServers, _: HaStack) -> Heal:
    servers.redis.process.freeze()
    return servers.redis.process.thaw


def _kill_api(_: HaServers, stack: HaStack) -> Heal:
    os.kill(stack.api.process.pid, signal.SIGKILL)

    def revive() -> None:
        stack.api.process.kill()
        stack.api.start()

    return revive


def faults(frozen_seconds: float) -> dict[str, Fault]:
    """Give every fault by its name; a frozen machine stays frozen for `frozen_seconds`."""
    # A machine that is gone is missed when its lease of 20 s has run out.
    lease = Bounds(keyed=30.0, starts=35.0)
    found = (
        Fault(
            name="primary killed",
            strike=_kill_primary,
            heal_after_seconds=0,
            bounds=Bounds(keyed=15.0, unkeyed=2.0, starts=20.0),
        ),
        Fault(
            name="Patroni and primary killed",
            strike=_kill_patroni_and_primary,
            heal_after_seconds=_SUPERVISOR_SECONDS,
            bounds=Bounds(keyed=15.0, unkeyed=2.0, starts=20.0),
        ),
        Fault(name="primary's machine gone", strike=_kill_patroni_and_primary, heal_after_seconds=30.0, bounds=lease),
        Fault(
            name="primary's machine fenced",
            strike=_fence_primary_machine,
            heal_after_seconds=20.0,
            bounds=Bounds(keyed=15.0, starts=20.0),
        ),
        Fault(name="primary frozen", strike=_freeze_primary, heal_after_seconds=frozen_seconds, bounds=lease),
        Fault(name="standby gone", strike=_lose_standby, heal_after_seconds=8.0, bounds=Bounds(keyed=5.0, unkeyed=5.0)),
        Fault(name="one cluster gone", strike=_lose_cluster, heal_after_seconds=20.0, bounds=Bounds(), sharded=True),
        Fault(name="etcd gone", strike=_lose_etcd, heal_after_seconds=30.0, bounds=Bounds()),
        Fault(
            name="broker leader killed",
            strike=_kill_broker_leader,
            heal_after_seconds=5.0,
            bounds=Bounds(starts=10.0),
        ),
        Fault(
            name="two brokers killed",
            strike=_kill_two_brokers,
            heal_after_seconds=10.0,
            bounds=Bounds(starts=60.0),
        ),
        Fault(
            name="all brokers killed",
            strike=_kill_all_brokers,
            heal_after_seconds=2.0,
            bounds=Bounds(starts=75.0),
        ),
        Fault(name="cache killed", strike=_kill_cache, heal_after_seconds=5.0, bounds=Bounds(), cached=True),
        Fault(name="cache frozen", strike=_freeze_cache, heal_after_seconds=10.0, bounds=Bounds(), cached=True),
        Fault(name="API killed", strike=_kill_api, heal_after_seconds=3.0, bounds=Bounds()),
    )
    return {fault.name: fault for fault in found}
