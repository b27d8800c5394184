"""The loop that every background role inherits: rounds, rests, and a way through any trouble."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import ClassVar, Self

from taskplatform.cancelling import cancel
from taskplatform.errors import OutcomeUnknown, Unavailable
from taskplatform.telemetry import Metrics, logger

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0


class Role:
    """Work that goes on in rounds; any number of processes may play the same role at once.

    A subclass names itself, says in `run_once` what one round does, and how long it rests between rounds. A round that
    is cut short by a crash must leave nothing that another one would not repeat.
    """

    name: ClassVar[str]

    def __init__(self, metrics: Metrics, *, pause_seconds: float) -> None:
        self.metrics = metrics
        self.pause_seconds = pause_seconds
        self.after_round: Callable[[], None] | None = None
        """Called after every round, failed ones too; for those who wait for one."""
        self.last_round = time.monotonic()
        """When the last round ended, by the monotonic clock."""
        self._log = logger(f"taskplatform.{self.name}")
        self.began = False
        """Whether a round has ever ended well."""
        self._failures = 0
        self._trouble = ""
        self.title = self.name
        """What it is called in figures and log lines: the roles of further Postgres clusters add their number."""

    @property
    def trouble(self) -> str:
        """What the last round failed of, "" when it ended well."""
        return self._trouble

    def of_cluster(self, number: int) -> Self:
        """Say which of several Postgres clusters this role works for."""
        self.title = f"{self.name}-{number}" if number else self.name
        return self

    async def run_once(self) -> bool:
        """Do one round; True when there is more to do at once."""
        raise NotImplementedError

    async def rest(self) -> None:
        """Return when the next round should begin; cut short when the role stops."""
        await asyncio.sleep(self.pause_seconds)

    def wait_after_failure(self) -> float:
        """Tell for how many seconds to wait after the rounds that have failed in a row; cut short by a stop."""
        return wait_after(self._failures)

    async def run(self, stop: asyncio.Event) -> None:
        """Do rounds until `stop` is set; a round that has begun is finished.

        Whatever a round raises is logged, once until it changes, and the next one follows after a wait that grows with
        every failure in a row up to LONGEST_WAIT_SECONDS.
        """
        age = self.metrics.role_round_age_seconds.labels(role=self.title)
        age.set_function(lambda: time.monotonic() - self.last_round)
        while not stop.is_set():
            more = await self._round()
            if more:
                # A backlog must not starve the roles beside this one.
                await asyncio.sleep(0)
            elif more is None:
                await unless_stopped(stop, asyncio.sleep(self.wait_after_failure()))
            else:
                await unless_stopped(stop, self._rest())

    async def _round(self) -> bool | None:
        try:
            more = await self.run_once()
        except (Unavailable, OutcomeUnknown) as error:
            self._note_failure(f"{type(error).__name__}: {error}")
            return None
        except Exception as error:  # noqa: BLE001  # A role outlives whatever a round runs into.
            self._note_failure(f"{type(error).__name__}: {error}", error)
            return None
        else:
            self._note_success()
            return more
        finally:
            self.last_round = time.monotonic()
            self.metrics.role_rounds_total.labels(role=self.title).inc()
            if self.after_round is not None:
                self.after_round()

    async def _rest(self) -> None:
        try:
            await self.rest()
        except Exception as error:  # noqa: BLE001  # As above: what fails here for long fails in the next round too.
            self._log.debug("A rest was cut short", role=self.title, trouble=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self.pause_seconds)

    def _note_failure(self, trouble: str, bug: Exception | None = None) -> None:
        self._failures += 1
        self.metrics.role_errors_total.labels(role=self.title).inc()
        self.metrics.mode.labels(component=self.title).set(1)
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if bug is None:
            self._log.warning("This role cannot work and tries again", role=self.title, trouble=trouble)
        else:
            self._log.error("A round failed unexpectedly", role=self.title, exc_info=bug)

    def _note_success(self) -> None:
        self.metrics.mode.labels(component=self.title).set(0)
        if self._trouble:
            self._log.info("This role works again", role=self.title, failures=self._failures)
        self.began = True
        self._failures = 0
        self._trouble = ""


def wait_after(failures: int) -> float:
    """Give the wait in seconds after that many failures in a row: doubled each time, bounded, half of it at random."""
    longest = min(FIRST_WAIT_SECONDS * 2.0 ** min(failures, 16), LONGEST_WAIT_SECONDS)
    return longest * random.uniform(0.5, 1.0)


async def unless_stopped(stop: asyncio.Event, waiting: Coroutine[None, None, None]) -> None:
    """Await `waiting`, or abandon it as soon as `stop` is set."""
    stopped = asyncio.ensure_future(stop.wait())
    wait = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait((stopped, wait), return_when=asyncio.FIRST_COMPLETED)
        if wait.done():
            wait.result()
    finally:
        await cancel(stopped, wait)
