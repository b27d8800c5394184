"""The fleet of a trial, by the events of the engine: how large it was, and how its workers ended. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A container was started, got a signal (`kill`: whoever stops one sends SIGTERM first), or ended (`die`)."""

    container: str
    action: str
    exit_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Every size that a fleet had, one after the other; `working` leaves out those that had been told to stop."""

    sizes: Sequence[int]
    working: Sequence[int]

    def breaches(self, most: int) -> list[str]:
        """Give what was not as promised of a fleet that grows from one worker to `most` that work, and shrinks to one.

        A worker that drains keeps its place from nobody, so that up to twice as many are there.
        """
        wanted = (self.sizes[0], max(self.working), self.sizes[-1]) == (1, most, 1) and max(self.sizes) <= 2 * most
        return [] if wanted else [f"the fleet went {self.sizes}, those at work {self.working}"]


def follow(first: Collection[str], events: Iterable[Event]) -> Fleet:
    """Count the workers from event to event; the containers `first` ran before."""
    running, working = set(first), set(first)
    sizes, at_work = [len(running)], [len(working)]
    for event in events:
        if event.action == "start":
            running.add(event.container)
            working.add(event.container)
        else:
            working.discard(event.container)
            if event.action == "die":
                running.discard(event.container)
        for seen, size in ((sizes, len(running)), (at_work, len(working))):
            if size != seen[-1]:
                seen.append(size)
    return Fleet(sizes=sizes, working=at_work)


def exit_statuses(events: Iterable[Event], killed: Iterable[str]) -> list[int]:
    """Give how the workers ended but for the kills; a container that was killed may have been started again."""
    kills, statuses = set(killed), []
    for event in events:
        if event.exit_status is None:
            continue
        if event.container in kills:
            kills.remove(event.container)
        else:
            statuses.append(event.exit_status)
    return statuses
