"""What was found, as documents: where, with what, all rounds, and what they say together."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.figures import Ratio, Sample, Spread, ratios_of, spreads_of, values_of
from benchmarks.goals import Standing, standings_of
from benchmarks.measure import Scale
from benchmarks.roster import PLATFORM, Entry
from taskplatform.servers import Postgres, RabbitMQ, Redis


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What everything ran on."""

    processors: int
    model: str
    system: str
    python: str
    servers: list[str]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A side as it was measured."""

    title: str
    slots: str
    job: str
    worker_killed: str
    result: str
    options: str
    versions: dict[str, str]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a run has found; the keys of its JSON form stay what they are."""

    made_at: str
    machine: Machine
    scale: dict[str, float]
    sides: dict[str, Side]
    samples: list[Sample]
    spreads: dict[str, dict[str, Spread]]
    ratios: dict[str, dict[str, Ratio]]
    failures: list[str]


class AtScale(msgspec.Struct, frozen=True, kw_only=True):
    """What a platform with full tables does beside one with empty ones; `milliseconds` are per 1,000 jobs or calls."""

    made_at: str
    machine: Machine
    sizes: dict[str, int]
    samples: list[Sample]
    spreads: dict[str, dict[str, Spread]]
    failures: list[str]


class Resting(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a platform that has nothing to do; processor time in percent of one processor."""

    name: str
    processes: int
    cpu_percent: float
    rss_mib: float
    pss_mib: float


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """A whole platform at rest; RSS counts a shared page once for every process, PSS once in all."""

    made_at: str
    machine: Machine
    seconds: float
    parts: list[Resting]
    cpu_percent: float
    rss_mib: float
    pss_mib: float


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known, in parts that are measured apart, and how every goal stands."""

    goals: dict[str, Standing] = {}
    comparison: Outcome | None = None
    at_scale: AtScale | None = None
    idle: Idle | None = None

    def judged(self) -> Record:
        """Judge all goals anew."""
        samples = [sample for part in (self.comparison, self.at_scale) if part is not None for sample in part.samples]
        return msgspec.structs.replace(self, goals=standings_of(values_of(samples)))


def outcome_of(
    entries: Sequence[Entry],
    scale: Scale,
    samples: Sequence[Sample],
    versions: dict[str, dict[str, str]],
    failures: Sequence[str],
) -> Outcome:
    """Sum up a run."""
    values = values_of(samples)
    return Outcome(
        made_at=this_moment(),
        machine=machine(),
        scale=asdict(scale),
        sides={entry.key: _side(entry, versions.get(entry.key, {})) for entry in entries},
        samples=list(samples),
        spreads=spreads_of(values),
        ratios=ratios_of(values, PLATFORM.key),
        failures=list(failures),
    )


def this_moment() -> str:
    """Give the time for a document."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine() -> Machine:
    """Describe this machine and the servers on it."""
    return Machine(
        processors=os.cpu_count() or 1,
        model=_processor(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        servers=[
            f"{Postgres.installed_version()}, fsync and synchronous_commit on",
            f"{RabbitMQ.installed_version()}, one node",
            f"{Redis.installed_version()}, append-only file written each second",
        ],
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _side(entry: Entry, versions: dict[str, str]) -> Side:
    return Side(
        title=entry.title,
        slots=entry.slots,
        job=entry.guarantee.job,
        worker_killed=entry.guarantee.worker_killed,
        result=entry.guarantee.result,
        options=entry.options,
        versions=versions,
    )
