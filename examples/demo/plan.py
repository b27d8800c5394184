"""Decides which jobs the demo submits and how each of them has to end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, product
from random import Random
from typing import Any

from examples import chaos, documents, photos, tables
from taskplatform import Task

PHOTOS = ("flower.jpg", "flower2.jpg", "frozenpond.mpo", "hopper.jpg", "sugarshack.mpo")
BROKEN_PHOTO = "truncated.jpg"
WIDTHS = (32, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320, 480)
CROPS = ((64, 64), (96, 96), (128, 128), (160, 90), (90, 160), (256, 128))

WEATHER = "seattle-weather.csv"
WEATHER_COLUMNS = ("precipitation", "temp_max", "temp_min", "wind")
EMPLOYMENT = "us-employment.csv"
SECTORS = (
    "construction",
    "durable_goods",
    "education_and_health_services",
    "financial_activities",
    "government",
    "information",
    "leisure_and_hospitality",
    "manufacturing",
    "mining_and_logging",
    "retail_trade",
    "utilities",
    "wholesale_trade",
)

SHARDS = 32
STUCK, BUSY, KILLERS = 12, 8, 2


class Ending(StrEnum):
    """How a planned job has to end."""

    AT_ONCE = "succeeded without a failure"
    AFTER_RETRIES = "succeeded after more than one attempt"
    HOPELESS = "dead, not retryable"
    POISON = "dead, poison"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """One job to submit, with its named arguments, and the ending that is right for it."""

    task: Task[..., Any]
    arguments: dict[str, Any]
    ending: Ending = Ending.AT_ONCE


def whole_plan(output: str, random: Random) -> tuple[PlannedJob, ...]:
    """Give all jobs of the demo in an order that mixes good and bad; files go to the folder `output` (absolute)."""
    jobs = [*_photos(output), *_tables(output), *_documents(output), *_misbehaving(output)]
    random.shuffle(jobs)
    return tuple(jobs)


def _photos(output: str) -> Iterator[PlannedJob]:
    for photo in PHOTOS:
        yield PlannedJob(task=photos.metadata, arguments={"photo": photo})
    for photo, width in product(PHOTOS, WIDTHS):
        yield PlannedJob(task=photos.thumbnail, arguments={"photo": photo, "output": output, "width": width})
    for photo, (width, height) in product(PHOTOS, CROPS):
        arguments = {"photo": photo, "output": output, "width": width, "height": height}
        yield PlannedJob(task=photos.crop, arguments=arguments)


def _tables(output: str) -> Iterator[PlannedJob]:
    columns = [*product([WEATHER], WEATHER_COLUMNS), *product([EMPLOYMENT], SECTORS)]
    for table, column in [*columns, ("airports.csv", "latitude"), ("airports.csv", "longitude")]:
        yield PlannedJob(task=tables.summary, arguments={"table": table, "column": column})
    pairs = [
        *product([WEATHER], combinations(WEATHER_COLUMNS, 2)),
        *product([EMPLOYMENT], combinations(SECTORS[:8], 2)),
    ]
    for table, (left, right) in pairs:
        yield PlannedJob(task=tables.correlation, arguments={"table": table, "left": left, "right": right})
    groups = [(WEATHER, "weather", column) for column in WEATHER_COLUMNS]
    states = [("airports.csv", "state", "latitude"), ("airports.csv", "state", "longitude")]
    for table, key, value in [*groups, *states, ("iowa-electricity.csv", "source", "net_generation")]:
        arguments = {"table": table, "key": key, "value": value, "output": output}
        yield PlannedJob(task=tables.group_by, arguments=arguments)


def _documents(output: str) -> Iterator[PlannedJob]:
    for title in documents.titles():
        yield PlannedJob(task=documents.terms, arguments={"title": title})
    for shard in range(SHARDS):
        arguments = {"shard": shard, "shards": SHARDS, "output": output}
        yield PlannedJob(task=documents.index_shard, arguments=arguments)


def _misbehaving(output: str) -> Iterator[PlannedJob]:
    titles = documents.titles()
    for title in titles[:STUCK]:
        arguments: dict[str, Any] = {"title": title, "opens_on_attempt": 3}
        yield PlannedJob(task=chaos.stuck_shelf, arguments=arguments, ending=Ending.AFTER_RETRIES)
    for title in titles[-BUSY:]:
        arguments = {"title": title, "opens_on_attempt": 2, "come_back_seconds": 0.5}
        yield PlannedJob(task=chaos.busy_shelf, arguments=arguments, ending=Ending.AFTER_RETRIES)
    for width in WIDTHS[:4]:
        arguments = {"photo": BROKEN_PHOTO, "output": output, "width": width}
        yield PlannedJob(task=photos.thumbnail, arguments=arguments, ending=Ending.HOPELESS)
    yield PlannedJob(task=photos.metadata, arguments={"photo": BROKEN_PHOTO}, ending=Ending.HOPELESS)
    for _ in range(KILLERS):
        yield PlannedJob(task=chaos.kill_worker, arguments={}, ending=Ending.POISON)
