"""What the health pages of a background process say of roles that work for several clusters."""

import asyncio
from typing import ClassVar

from taskplatform.errors import StoreUnavailable
from taskplatform.playing import health_of
from taskplatform.pulse import Pulse
from taskplatform.service import Role
from taskplatform.telemetry import new_metrics


class Relaying(Role):
    """Works, or has its cluster away."""

    name: ClassVar[str] = "relaying"

    def __init__(self, *, away: bool) -> None:
        super().__init__(new_metrics(), pause_seconds=0.0)
        self._away = away

    async def run_once(self) -> bool:
        if self._away:
            raise StoreUnavailable("gone")
        return False


class Sweeping(Relaying):
    """Another role."""

    name: ClassVar[str] = "sweeping"


def play_one_round(role: Role) -> None:
    async def play() -> None:
        stop = asyncio.Event()
        role.after_round = stop.set
        await role.run(stop)

    asyncio.run(play())


def test_one_cluster_is_enough_to_start_and_to_be_ready() -> None:
    roles = [Relaying(away=False), Relaying(away=True).of_cluster(1)]

    health = health_of(roles, Pulse(new_metrics()))
    for role in roles:
        play_one_round(role)

    assert (health.started(), health.ready()) == ([], [])


def test_a_role_that_can_work_nowhere_is_named_with_every_cluster() -> None:
    roles = [Relaying(away=True), Relaying(away=True).of_cluster(1), Sweeping(away=False)]

    health = health_of(roles, Pulse(new_metrics()))
    for role in roles:
        play_one_round(role)

    assert health.started() == ["relaying has ended no round well", "relaying-1 has ended no round well"]
    assert health.ready() == ["relaying: StoreUnavailable: gone", "relaying-1: StoreUnavailable: gone"]
