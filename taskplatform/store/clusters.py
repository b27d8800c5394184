"""Asks Postgres clusters, one or several at once, and knows where each shard is at home."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from taskplatform.autoscale.contract import ScaleStore
from taskplatform.cancelling import cancel
from taskplatform.errors import OutcomeUnknown, ShardMoved, ShardUnavailable, StoreUnavailable
from taskplatform.freshness import Position
from taskplatform.shards import Homes, KnownMap
from taskplatform.store.contract import Acceptance, DispatchStore, IntakeStore, OperateStore, ReadStore, RefusedJob
from taskplatform.store.upkeep import UpkeepStore
from taskplatform.store.watching import WatchStore
from taskplatform.telemetry import logger

ANSWER_SECONDS = 5.0
"""How long a cluster may take to answer what all of them are asked: one that is frozen must not hold them up."""
ASK_NEXT_SECONDS = 0.5
"""How long one may take where another may be asked instead: whoever asks has a second or two in all."""
REST_SECONDS = 2.0
"""How long a cluster that did not answer is asked last, where any may be asked."""
WATCH_SECONDS = 2.0
"""How often the map is read again anyhow."""

T = TypeVar("T")


class Cluster(IntakeStore, ReadStore, OperateStore, DispatchStore, UpkeepStore, ScaleStore, WatchStore, Protocol):
    """The store of one Postgres cluster."""

    async def open(self) -> None:
        """Connect."""

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
        self._reading: asyncio.Task[bool] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._log = logger("taskplatform.shards")

    async def open(self) -> None:
        """Connect, and read the map where a cluster is up; a cluster that is away is no error here."""
        await asyncio.gather(*(member.open() for member in self.members))
        await self.refresh()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Close all connections."""
        await cancel(*(task for task in (self._watching, self._reading) if task is not None))
        await asyncio.gather(*(member.close() for member in self.members))

    async def known(self) -> Homes:
        """Give the homes of all shards. Raises StoreUnavailable while no cluster has told the map."""
        if not self.homes.version:
            await self.refresh()
        return self.homes

    async def refresh(self) -> bool:
        """Read the map of every cluster that answers, once for all who ask at the time; True when it changed."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())
        return await asyncio.shield(self._reading)

    async def one(self, number: int, ask: Callable[[Cluster], Awaitable[T]]) -> T:
        """Ask one cluster. Raises ShardUnavailable when it is away."""
        try:
            return await ask(self.members[number])
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
            return {number: await self.one(number, ask)}
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
        answers = await self._gathered(asked)
        found = [answer for answer in answers.values() if not isinstance(answer, BaseException)]
        for answer in answers.values():
            if isinstance(answer, BaseException) and not isinstance(answer, StoreUnavailable):
                raise answer
        if not found and not none_is_fine:
            raise _away(asked, next(iter(answers.values())))
        return found

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
        self, asked: Mapping[int, Callable[[Cluster], Awaitable[T]]], *, writes: bool = False
    ) -> dict[int, T | BaseException]:
        async def within(ask: Callable[[Cluster], Awaitable[T]], member: Cluster) -> T:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await ask(member)
            except TimeoutError:
                raise (OutcomeUnknown if writes else StoreUnavailable)(
                    f"no answer within {ANSWER_SECONDS:g} s"
                ) from None

        answers = await asyncio.gather(
            *(within(ask, self.members[number]) for number, ask in asked.items()), return_exceptions=True
        )
        return dict(zip(asked, answers, strict=True))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            with suppress(StoreUnavailable):
                await self.refresh()

    async def _read(self) -> bool:
        changed = False
        try:
            answers = await self._gathered(dict.fromkeys(range(len(self.members)), _map_of))
            for found in answers.values():
                if found is None or isinstance(found, BaseException):
                    continue
                changed = self.homes.adopt(found.map) or changed
        finally:
            self._reading = None
        if changed:
            self._log.info("The shard map", version=self.homes.version)
        return changed


def has_moved(answer: Acceptance) -> bool:
    """Tell whether a job was refused because it is at home in another cluster than the one that was asked."""
    return isinstance(answer, RefusedJob) and isinstance(answer.error, ShardMoved)


def _away(numbers: Iterable[int], error: object) -> ShardUnavailable:
    names = ", ".join(map(str, numbers))
    which = "cluster" if "," not in names else "clusters"
    return ShardUnavailable(f"Postgres {which} {names}: no answer ({type(error).__name__})")


async def _map_of(member: Cluster) -> KnownMap | None:
    return await member.shard_map()
