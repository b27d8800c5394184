"""The load writes down what came of each request, also of one that nobody took."""

import asyncio
from pathlib import Path

import pytest

from taskplatform.servers import free_ports
from tests.faults.history import Exchange, Journal, read_lines
from tests.faults.load import Generator, Load


def test_a_request_that_nobody_takes_is_written_down_as_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.load._GIVE_UP_SECONDS", 0.0)
    history = tmp_path / "history.jsonl"
    (port,) = free_ports(1)
    load = Load(port=port, key="", seed=1, jobs=1, over_seconds=0.0, history=str(history), connections=1)

    asyncio.run(Generator(load, Journal(history)).run())

    (failed,) = read_lines(history, Exchange)
    assert (failed.sent, failed.status, failed.ids) == (False, 0, [None])
