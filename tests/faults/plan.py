"""What a fault run submits and whom it kills when, as pure functions of a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random

_BATCH_SIZES = (10, 20, 40, 80)
_RESENT_SHARE = 0.1
_REUSED_SHARE = 0.01


class Kind(StrEnum):
    """What a job of the run does; each is a task of `tests.faults.tasks`."""

    NOOP = "noop"
    NAP = "nap"
    FLAKY = "flaky"
    HOPELESS = "hopeless"


_SHARES = {Kind.NOOP: 0.84, Kind.NAP: 0.06, Kind.FLAKY: 0.06, Kind.HOPELESS: 0.04}


class Again(StrEnum):
    """What follows an accepted single submission."""

    NOTHING = "nothing"
    SAME = "same"  # the same key and body once more: the same job
    OTHER = "other"  # the same key with another body: refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One job to submit; `number` is unique in the run and travels in its arguments."""

    number: int
    kind: Kind
    key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One request; a batch when it holds several jobs. Without keys it is sent once at most."""

    number: int
    jobs: tuple[Planned, ...]
    batch: bool
    again: Again = Again.NOTHING


class Victim(StrEnum):
    """What the killer aims at."""

    PARENT = "worker parent"
    CHILD = "worker child"
    API = "api"
    DISPATCHER = "dispatcher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One SIGKILL, so many seconds after the load began."""

    at_seconds: float
    victim: Victim


def kind_of(seed: int, number: int) -> Kind:
    """Tell what a job does from its number alone, so that the checker needs no plan."""
    draw = Random(f"{seed}-{number}").random()
    for kind, share in _SHARES.items():
        draw -= share
        if draw < 0:
            return kind
    return Kind.NOOP


def submissions(seed: int, jobs: int, *, keyless_share: float = 0.0) -> Iterator[Submission]:
    """Give so many jobs, half of them one by one, half in batches of which every other one has keys.

    Single jobs have keys too, but for a share of `keyless_share`.
    """
    random = Random(seed)
    made = 0
    batched = 0
    index = 0
    while made < jobs:
        batch = batched * 2 < made
        size = min(random.choice(_BATCH_SIZES), jobs - made) if batch else 1
        keyed = random.random() < 0.5 if batch else not (keyless_share and random.random() < keyless_share)
        yield Submission(
            number=index,
            jobs=tuple(
                Planned(number=number, kind=kind_of(seed, number), key=f"run-{seed}-{number}" if keyed else None)
                for number in range(made, made + size)
            ),
            batch=batch,
            again=Again.NOTHING if batch or not keyed else _again(random),
        )
        made += size
        batched += size if batch else 0
        index += 1


def kills(seed: int, each: int, over_seconds: float) -> list[Kill]:
    """Spread so many kills of every victim evenly with some jitter, in an order that the seed decides."""
    random = Random(seed)
    victims = [victim for victim in Victim for _ in range(each)]
    random.shuffle(victims)
    step = over_seconds / (len(victims) + 1)
    return [
        Kill(at_seconds=round(step * (index + 1 + random.uniform(-0.3, 0.3)), 2), victim=victim)
        for index, victim in enumerate(victims)
    ]


def _again(random: Random) -> Again:
    draw = random.random()
    if draw < _REUSED_SHARE:
        return Again.OTHER
    return Again.SAME if draw < _REUSED_SHARE + _RESENT_SHARE else Again.NOTHING
