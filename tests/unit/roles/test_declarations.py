"""What a process that publishes knows of the tasks whose jobs may travel together."""

import asyncio

import pytest

from taskplatform.declarations import Declarations
from taskplatform.errors import StoreUnavailable
from taskplatform.telemetry import new_metrics
from tests.unit.roles.test_catalogue import Tasks


def test_what_a_task_declares_is_known_after_a_round() -> None:
    tasks = Tasks("old")
    tasks.bundle_jobs = 7
    declarations = Declarations(tasks, new_metrics())
    before = declarations.bundle_jobs("old")

    asyncio.run(declarations.run_once())

    assert (before, declarations.bundle_jobs("old"), declarations.bundle_jobs("new")) == (1, 7, 1)


def test_what_was_read_last_counts_while_the_store_is_away_and_no_longer() -> None:
    tasks = Tasks("old")
    tasks.bundle_jobs = 7
    declarations = Declarations(tasks, new_metrics())
    asyncio.run(declarations.run_once())

    tasks.away = True
    with pytest.raises(StoreUnavailable):
        asyncio.run(declarations.run_once())
    meanwhile = declarations.bundle_jobs("old")
    tasks.away, tasks.bundle_jobs = False, 1
    asyncio.run(declarations.run_once())

    assert (meanwhile, declarations.bundle_jobs("old")) == (7, 1)
