"""The table of contents of the test tools: each plugin below holds the fixtures of one subject."""

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
