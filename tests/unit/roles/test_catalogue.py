"""What a process knows of the announced tasks, and how often it asks."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from taskplatform.catalogue import Catalogue
from taskplatform.errors import StoreUnavailable, UnknownTask
from taskplatform.store.contract import TaskStore
from taskplatform.task import Announced, TaskSpec


class Tasks:
    """The tasks of a store that may be away; counts how often it is read."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.away = False
        self.bundle_jobs = 1
        self.reads = 0

    async def tasks(self) -> dict[str, Announced]:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("away")
        return {name: Announced(spec=TaskSpec(name=name, bundle_jobs=self.bundle_jobs)) for name in self.names}


def run(tasks: Tasks, use: Callable[[Catalogue], Awaitable[None]]) -> None:
    asyncio.run(_run(tasks, use))


async def _run(tasks: Tasks, use: Callable[[Catalogue], Awaitable[None]]) -> None:
    catalogue = Catalogue(cast(TaskStore, tasks))
    await catalogue.refresh()
    await use(catalogue)


def test_a_task_that_was_announced_after_the_last_read_is_found() -> None:
    tasks = Tasks("old")

    async def scene(catalogue: Catalogue) -> None:
        tasks.names.append("new")
        assert (await catalogue.find("new")).spec.name == "new"

    run(tasks, scene)


def test_unknown_tasks_of_one_request_cost_one_read() -> None:
    tasks = Tasks("old")

    async def scene(catalogue: Catalogue) -> None:
        since = catalogue.now()
        for number in range(100):
            with pytest.raises(UnknownTask):
                await catalogue.find(f"unknown{number}", since=since)

    run(tasks, scene)
    assert tasks.reads == 2


def test_many_who_ask_at_once_share_a_read() -> None:
    tasks = Tasks("old")

    async def scene(catalogue: Catalogue) -> None:
        asked = [catalogue.find(f"unknown{number}") for number in range(100)]
        assert all(isinstance(end, UnknownTask) for end in await asyncio.gather(*asked, return_exceptions=True))

    run(tasks, scene)
    assert tasks.reads == 2


def test_a_task_is_not_called_unknown_while_the_store_is_away() -> None:
    tasks = Tasks("old")

    async def scene(catalogue: Catalogue) -> None:
        tasks.away = True
        with pytest.raises(StoreUnavailable):
            await catalogue.find("new")
        assert (await catalogue.find("old")).spec.name == "old"

    run(tasks, scene)


def test_the_list_holds_what_was_announced_a_moment_ago_and_what_is_known_while_the_store_is_away() -> None:
    tasks = Tasks("old")

    async def scene(catalogue: Catalogue) -> None:
        tasks.names.append("new")
        assert [task.spec.name for task in await catalogue.tasks()] == ["new", "old"]
        tasks.away = True
        assert [task.spec.name for task in await catalogue.tasks()] == ["new", "old"]

    run(tasks, scene)


def test_of_an_unknown_task_no_jobs_travel_together() -> None:
    tasks = Tasks("old")
    tasks.bundle_jobs = 7

    async def scene(catalogue: Catalogue) -> None:
        assert (catalogue.bundle_jobs("old"), catalogue.bundle_jobs("new")) == (7, 1)

    run(tasks, scene)
