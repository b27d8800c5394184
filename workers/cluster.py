"""A worker's dealings with one Postgres cluster: the link, the lease, and what a glance at both says."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol
from uuid import UUID

from taskplatform.errors import StoreUnavailable
from taskplatform.shards import Homes, KnownMap
from taskplatform.store.statements import Call, announce_call, call, lost_call, renew_call
from taskplatform.store.working import Lease
from taskplatform.task import TaskSpec
from taskplatform.telemetry import logger
from workers.held import Turn
from workers.link import Answer, Link, Refused, Row, Rows

_log = logger(__name__)


class Keeper(Protocol):
    """The parent, as its clusters see it."""

    def own_lease(self) -> Lease:
        """Give the lease as it is to be written."""

    def attempts(self, cluster: int) -> list[tuple[UUID, int]]:
        """Give the attempts that a cluster says are this worker's."""

    def lost(self, cluster: int, rows: Sequence[Row]) -> None:
        """Take in which attempts are not any more."""

    def resume(self) -> None:
        """Go on with whatever may go on now."""

    def moved(self) -> None:
        """Go by the newest shard map."""


class Cluster:
    """One turn at most is under way on it. With `homes`, of several clusters, it is `away` when nothing is answered."""

    def __init__(self, number: int, link: Link, lease_seconds: float, homes: Homes | None = None) -> None:
        self.number = number
        self.link = link
        self.turn: Turn | None = None
        self.asked_at = 0.0
        """When the last turn was asked for, in epoch seconds."""
        self.away = False
        self.announced = False
        """Whether this worker's tasks were ever announced here."""
        self._lease_seconds = lease_seconds
        self._homes = homes
        self._kept_at = time.monotonic()
        self._renewing = False
        self._checking = False
        self._looking = False
        self._watched: set[tuple[UUID, int]] = set()
        self._asked = 0
        self._answered = 0
        self._seen = (0, 0)

    @property
    def free(self) -> bool:
        """Whether a turn may be taken."""
        return self.turn is None and not self.away

    def start(self, specs: Collection[TaskSpec], keeper: Keeper) -> None:
        """Connect, take the lease, and make the tasks known."""
        self._keeper = keeper
        self.link.start()
        self.renew()
        self.ask([announce_call(specs)], self._noted)

    def ask(self, calls: Sequence[Call], answered: Callable[[Answer], None]) -> None:
        """Send a request; it is sent again until it is answered."""
        self._asked += 1

        def count(answer: Answer) -> None:
            self._answered += 1
            answered(answer)

        self.link.ask(calls, count)

    def renew(self) -> None:
        """Keep the lease, and hear of a new shard map."""
        if not self._renewing:
            self._renewing = True
            self.ask([renew_call(self._keeper.own_lease()), *self.news()], self._renewed)

    def news(self) -> list[Call]:
        """Give the question for the newest shard map, none of a cluster that is the only one; `learn` its rows."""
        return [] if self._homes is None else [call("newest_map")]

    def learn(self, rows: Sequence[Row]) -> None:
        """Go by a shard map that this cluster told, if it is news."""
        for version, cluster, homes in rows:
            found = KnownMap.of_row(int(version or 0), int(cluster or 0), homes or "")
            try:
                if self._homes is not None and self._homes.adopt(found.map):
                    self._keeper.moved()
            except StoreUnavailable as error:
                _log.error("the shard map cannot be followed", error=str(error))

    def may_have_lapsed(self) -> bool:
        """Tell whether claims may have been taken back, after a freeze or long without Postgres; asks, once, if so."""
        if time.monotonic() - self._kept_at < self._lease_seconds:
            return False
        if not self._checking and not self.away:
            self._checking = True
            attempts = self._keeper.attempts(self.number)
            self.ask([renew_call(self._keeper.own_lease()), lost_call(attempts)], self._checked)
        return True

    def look(self) -> bool:
        """Ask what was lost of what is held for long; tells whether it is away now or back, which it was not before."""
        now = set(self._keeper.attempts(self.number))
        long_held, self._watched = sorted(now & self._watched), now
        before = self.away
        # A second without any answer, or no connection at all: the jobs of others must not wait for that.
        asked, answered = self._seen
        self._seen = (self._asked, self._answered)
        silent = asked > answered == self._answered
        self.away = self._homes is not None and (silent or not self.link.connected)
        if long_held and not self._looking:
            # Once at a time: while Postgres is away every question would be kept.
            self._looking = True
            self.ask([lost_call(long_held)], self._found_lost)
        return self.away is not before

    def _noted(self, answer: Answer) -> None:
        self.announced = self.announced or isinstance(answer, Rows)
        if isinstance(answer, Refused):
            _log.error("the tasks could not be announced", error=answer.detail)

    def _renewed(self, answer: Answer) -> None:
        self._renewing = False
        if not self._checking and time.monotonic() - self._kept_at < self._lease_seconds:
            self._kept_at = time.monotonic()
        if isinstance(answer, Rows) and len(answer.rows) > 1:
            self.learn(answer.rows[1])

    def _checked(self, answer: Answer) -> None:
        self._checking = False
        if isinstance(answer, Rows):
            self._kept_at = time.monotonic()
            self._keeper.lost(self.number, answer.rows[1])
        self._keeper.resume()

    def _found_lost(self, answer: Answer) -> None:
        self._looking = False
        if isinstance(answer, Rows):
            self._keeper.lost(self.number, answer.rows[0])
        self._keeper.resume()
