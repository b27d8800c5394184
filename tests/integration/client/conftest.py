"""A whole platform for the tests of SDK and command line."""

from collections.abc import Callable, Iterator

import pytest

from taskplatform.cli import main
from taskplatform.client import Client
from taskplatform.settings import environment_of
from tests.native.servers import Servers
from tests.native.stack import Stack

Run = Callable[..., tuple[int, str, str]]

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


@pytest.fixture
def run(platform: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with the platform's settings; gives status, stdout and stderr."""
    for name, value in {**environment_of(platform.settings), "TASKPLATFORM_API_KEY": platform.key}.items():
        monkeypatch.setenv(name, value)

    def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command
