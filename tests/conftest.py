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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have those tests come together that share a stack, after all that need none; otherwise their order stays."""
    items.sort(key=_stack_of)


def _stack_of(item: pytest.Item) -> tuple[int, str]:
    used = item.fixturenames if isinstance(item, pytest.Function) else ()
    rank = max((place for place, name in enumerate(STACKS, start=1) if name in used), default=0)
    return rank, str(item.path.parent) if rank else ""
