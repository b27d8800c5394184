"""The table of contents of the test tools: each plugin below holds the fixtures of one subject."""

import pytest

pytest_plugins = [
    "tests.fixtures.broker",
    "tests.fixtures.collector",
    "tests.fixtures.environment",
    "tests.fixtures.native",
    "tests.fixtures.proxy",
    "tests.fixtures.servers",
    "tests.fixtures.ha",
    "tests.fixtures.ghost",
    "tests.fixtures.replica",
    "tests.fixtures.store",
    "tests.fixtures.shards",
    "tests.fixtures.celery",
    "tests.fixtures.cache",
    "tests.fixtures.archive",
]

STACKS = ("platform", "standby_server", "second_postgres", "watched", "ha")
"""Fixtures that several tests share and that keep the processors busy as long as they stand, the busiest last."""
_IN_ONE_PROCESS = ("platform", "watched", "ha")
"""Those that take long to start: of several processes that run tests, one runs all that use them."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep the tests of a file in one process, and those that share a stack: pytest-xdist deals out what it is told."""
    shared = [name for name in _IN_ONE_PROCESS if name in _fixtures_of(item)]
    item.add_marker(pytest.mark.xdist_group(f"{item.path.parent}:{shared[-1]}" if shared else str(item.path)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have those tests come together that share a stack, after all that need none; otherwise their order stays."""
    items.sort(key=_stack_of)


def _stack_of(item: pytest.Item) -> tuple[int, str]:
    used = _fixtures_of(item)
    rank = max((place for place, name in enumerate(STACKS, start=1) if name in used), default=0)
    return rank, str(item.path.parent) if rank else ""


def _fixtures_of(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []
