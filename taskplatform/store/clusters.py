"""Asks Postgres clusters, one or several at once, and knows where each shard is at home."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from taskplatform.autoscale.contract import ScaleStore
from taskplatform.cancelling import cancel
from taskplatform.errors import OutcomeUnknown, ShardMoved, ShardUnavailable, StoreUnavailable, TaskplatformError
from taskplatform.freshness import Position
from taskplatform.shards import Homes, KnownMap
from taskplatform.store.contract import (
    Acceptance,
    DispatchStore,
    IntakeStore,
    OperateStore,
    ReadStore,
    RefusedJob,
    TaskStore,
)
from taskplatform.store.upkeep import UpkeepStore
from taskplatform.store.watching import WatchStore
from taskplatform.telemetry import logger

ANSWER_SECONDS = 5.0
"""How long a cluster may take to answer what all of them are asked: one that is frozen must not hold them up."""
ASK_NEXT_SECONDS = 0.5
"""How long one may take where another may be asked instead: whoever asks has a second or two in all."""
REST_SECONDS = 2.0
"""How long a cluster that did not answer is asked last where any may be asked, and not at all for what can wait."""
WATCH_SECONDS = 2.0
"""How often the map is read again anyhow."""

T = TypeVar("T")


class Cluster(
    IntakeStore, TaskStore, ReadStore, OperateStore, DispatchStore, UpkeepStore, ScaleStore, WatchStore, Protocol
):
    """The store of one Postgres cluster."""

    async def close(self) -> None:
        """Close all connections."""

    def note(self, position: Position) -> None:
        """Count what somebody else has read, up to there, as seen by this process."""

    async def shard_map(self) -> KnownMap | None:
        """Read the newest map; None in a cluster that is the only one."""


class Clusters:
    """The clusters of one process, and the newest map that any of them told it."""

    def __init__(self, members: Sequence[Cluster], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.members = tuple(members)
        self.homes = Homes(len(members))
        self._clock = clock
        self._failed_at = [float("-inf")] * len(members)
        self._reading: dict[int, asyncio.Task[None]] = {}
        self._troubles: dict[int, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._log = logger("taskplatform.shards")

    async def open(self) -> None:
        """Connect, and return when a cluster has told the map, or none does; one that is away is no error here."""
        self._tasks = [
            asyncio.create_task(self._watch(number), name=f"shard map {number}") for number in range(len(self.members))
        ]
        await self._first_map()

    async def close(self) -> None:
        """Close all connections."""
        await cancel(*self._tasks, *self._reading.values())
        await asyncio.gather(*(member.close() for member in self.members))

    async def known(self) -> Homes:
        """Give the homes of all shards. Raises StoreUnavailable while no cluster has told the map."""
        if not self.homes.version:
            await self._first_map()
        return self.homes

    async def newer(self, version: int, ids: Iterable[UUID]) -> bool:
        """Tell whether there is a newer map than the one of that version, by which these jobs were sought in vain.

        Only where they were sought is it asked for: the map by which a cluster loses a shard is in that cluster first.
        """
        if self.homes.version <= version:
            await asyncio.gather(*(self._read(number) for number in self.homes.split(ids)))
        return self.homes.version > version

    async def one(self, number: int, ask: Callable[[Cluster], Awaitable[T]], *, writes: bool = False) -> T:
        """Ask one cluster. Raises ShardUnavailable when it is away, OutcomeUnknown when one of `writes` is cut off."""
        try:
            return await _within(ask(self.members[number]), writes=writes)
        except (ShardUnavailable, ShardMoved):
            raise
        except StoreUnavailable as error:
            raise _away([number], error) from error

    async def each(
        self, asked: Mapping[int, Callable[[Cluster], Awaitable[T]]], *, writes: bool = False
    ) -> dict[int, T]:
        """Ask several clusters at once.

        Raises ShardUnavailable, which names them, when any of them is away; and OutcomeUnknown when one of `writes` is
        cut off.
        """
        if len(asked) == 1:
            ((number, ask),) = asked.items()
            return {number: await self.one(number, ask, writes=writes)}
        answers = await self._gathered(asked, writes=writes)
        away = {number: answer for number, answer in answers.items() if isinstance(answer, StoreUnavailable)}
        for answer in answers.values():
            if isinstance(answer, BaseException) and (
                isinstance(answer, ShardMoved) or not isinstance(answer, StoreUnavailable)
            ):
                raise answer
        if away:
            raise _away(sorted(away), next(iter(away.values())))
        return {number: answer for number, answer in answers.items() if not isinstance(answer, BaseException)}

    async def all(self, ask: Callable[[Cluster], Awaitable[T]], *, writes: bool = False) -> list[T]:
        """Ask every cluster the same, the answers in their order. Raises as `each` does."""
        answers = await self.each(dict.fromkeys(range(len(self.members)), ask), writes=writes)
        return [answers[number] for number in sorted(answers)]

    async def living(
        self, asked: Mapping[int, Callable[[Cluster], Awaitable[T]]], *, none_is_fine: bool = False
    ) -> list[T]:
        """Ask several clusters, and give what those say that are there.

        Raises ShardUnavailable when none is, unless `none_is_fine`.
        """
        if not asked:
            return []
        return _those_that_answered(await self._gathered(asked), none_is_fine=none_is_fine)

    async def prompt(self, asked: Mapping[int, Callable[[Cluster], Awaitable[T]]]) -> list[T]:
        """Ask several clusters what can be asked again soon, and give what those say that answer at once.

        One that did not answer lately is left out. Raises ShardUnavailable when none answers.
        """
        now = self._clock()
        rested = {number: ask for number, ask in asked.items() if now - self._failed_at[number] >= REST_SECONDS}
        answers = await self._gathered(rested, within_seconds=ASK_NEXT_SECONDS)
        for number, answer in answers.items():
            if isinstance(answer, StoreUnavailable):
                self._failed_at[number] = self._clock()
        left_out = {number: StoreUnavailable("it rests") for number in asked if number not in rested}
        return _those_that_answered(answers | left_out, none_is_fine=not asked)

    def number(self, member: Cluster) -> int:
        """Tell the number of a cluster."""
        return self.members.index(member)

    async def anyone(self, ask: Callable[[Cluster], Awaitable[T]]) -> T:
        """Ask the first cluster, or the next one that answers. Raises ShardUnavailable when none does."""
        now = self._clock()
        numbers = sorted(range(len(self.members)), key=lambda each: (now - self._failed_at[each] < REST_SECONDS, each))
        trouble: Exception | None = None
        for number in numbers:
            try:
                async with asyncio.timeout(ANSWER_SECONDS if number == numbers[-1] else ASK_NEXT_SECONDS):
                    return await ask(self.members[number])
            except (StoreUnavailable, TimeoutError) as error:
                self._failed_at[number] = self._clock()
                trouble = error
        raise _away(sorted(numbers), trouble) from trouble

    async def _gathered(
        self,
        asked: Mapping[int, Callable[[Cluster], Awaitable[T]]],
        *,
        writes: bool = False,
        within_seconds: float | None = None,
    ) -> dict[int, T | BaseException]:
        answers = await asyncio.gather(
            *(_within(ask(self.members[number]), within_seconds, writes=writes) for number, ask in asked.items()),
            return_exceptions=True,
        )
        return dict(zip(asked, answers, strict=True))

    async def _first_map(self) -> None:
        # Others may tell a newer one later; but one that stands still must not hold this up.
        reading = [asyncio.create_task(self._read(number)) for number in range(len(self.members))]
        try:
            for told in asyncio.as_completed(reading):
                await told
                if self.homes.version:
                    return
        finally:
            await cancel(*reading)

    async def _watch(self, number: int) -> None:
        while True:
            await self._read(number)
            await asyncio.sleep(WATCH_SECONDS)

    async def _read(self, number: int) -> None:
        """Read the map of one cluster, once for all who ask at the time; one that tells none is no error."""
        if number not in self._reading:
            self._reading[number] = asyncio.create_task(self._ask_for_map(number))
        await asyncio.shield(self._reading[number])

    async def _ask_for_map(self, number: int) -> None:
        try:
            # Whoever stops reading, whatever for, would never hear of a newer map.
            (error,) = await asyncio.gather(self._adopt_map_of(number), return_exceptions=True)
        finally:
            del self._reading[number]
        trouble = "" if error is None else str(error) or f"no answer within {ANSWER_SECONDS:g} s"
        if trouble and trouble != self._troubles.get(number):
            expected = isinstance(error, (TaskplatformError, TimeoutError))
            log = self._log.warning if expected else self._log.error
            log("A cluster tells no shard map", cluster=number, trouble=trouble, exc_info=None if expected else error)
        self._troubles[number] = trouble

    async def _adopt_map_of(self, number: int) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            found = await self.members[number].shard_map()
        if found is not None and self.homes.adopt(found.map):
            self._log.info("The shard map", version=self.homes.version)


def has_moved(answer: Acceptance) -> bool:
    """Tell whether a job was refused because it is at home in another cluster than the one that was asked."""
    return isinstance(answer, RefusedJob) and isinstance(answer.error, ShardMoved)


async def _within(answer: Awaitable[T], seconds: float | None = None, *, writes: bool) -> T:
    seconds = ANSWER_SECONDS if seconds is None else seconds
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise (OutcomeUnknown if writes else StoreUnavailable)(f"no answer within {seconds:g} s") from None


def _those_that_answered(answers: Mapping[int, T | BaseException], *, none_is_fine: bool) -> list[T]:
    found = [answer for answer in answers.values() if not isinstance(answer, BaseException)]
    for answer in answers.values():
        if isinstance(answer, BaseException) and not isinstance(answer, StoreUnavailable):
            raise answer
    if not found and not none_is_fine:
        raise _away(answers, next(iter(answers.values())))
    return found


def _away(numbers: Iterable[int], error: object) -> ShardUnavailable:
    names = ", ".join(map(str, numbers))
    which = "cluster" if "," not in names else "clusters"
    return ShardUnavailable(f"Postgres {which} {names}: no answer ({type(error).__name__})")
