"""A whole platform for the tests of SDK and command line."""

from collections.abc import Iterator

import pytest

from taskplatform.client import Client
from tests.native.servers import Servers
from tests.native.stack import Stack

_WANTED = {
    "pools": ("default", "idle"),
    "task_modules": ("tests.integration.client.tasks", "examples.documents"),
    "worker_processes": 1,
}


@pytest.fixture(scope="package")
def platform(servers: Servers) -> Iterator[Stack]:
    """API, worker and dispatcher as processes."""
    with Stack(servers, _WANTED, name="sdk") as stack:
        yield stack


@pytest.fixture
def client(platform: Stack) -> Iterator[Client]:
    """The blocking client of that platform."""
    with Client(platform.settings.api_url, key=platform.key) as client:
        yield client
