"""The command of the failover runs: what it says of itself, and that it leaves nothing behind when it is ended."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from taskplatform.servers.trees import send, tree_of
from tests.ha.faults import faults
from tests.native.accounting import is_alive

_PROGRAM = (sys.executable, "-m", "tests.ha.campaign")
_ROOT = Path(__file__).resolve().parents[2]


def living(folder: Path) -> list[int]:
    """Give the processes that have to do with a folder: by their arguments, their environment or where they are."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if str(folder).encode() in _traces(entry)]


def _traces(entry: Path) -> bytes:
    with suppress(OSError):
        return b"\0".join(
            [(entry / "cmdline").read_bytes(), (entry / "environ").read_bytes(), bytes((entry / "cwd").readlink())]
        )
    return b""


def folder_of(campaign: int) -> Path:
    """Give the folder of a campaign's servers."""
    said = b"\0".join(_traces(Path("/proc", str(pid))) for pid in tree_of(campaign))
    found = re.search(rb"/[^\0]*/taskplatform-ha-\w+", said)
    assert found is not None
    return Path(os.fsdecode(found[0]))


@pytest.fixture
def campaign() -> Iterator[subprocess.Popen[str]]:
    """A campaign that has just frozen a primary; whatever it leaves behind is killed."""
    command = (*_PROGRAM, "--jobs-per-second", "20", "primary frozen")
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("primary frozen" in line for line in process.stdout)
        tree, folder = tree_of(process.pid), folder_of(process.pid)
        yield process
        send([pid for pid in {*tree, *living(folder)} if is_alive(pid)], signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def test_help_names_every_fault_and_gives_an_example() -> None:
    said = subprocess.run([*_PROGRAM, "--help"], cwd=_ROOT, capture_output=True, text=True, check=True).stdout

    assert [name for name in faults(0) if name not in re.sub(r"\s+", " ", said)] == []
    (example,) = re.findall(r'tests\.ha\.campaign "([^"]+)"', said)
    assert example in faults(0)


def test_a_fault_that_does_not_exist_is_refused() -> None:
    said = subprocess.run([*_PROGRAM, "no such"], cwd=_ROOT, capture_output=True, text=True, check=False)

    assert (said.returncode, said.stdout) == (2, "")
    assert "invalid choice: 'no such' (choose from 'primary killed', " in said.stderr


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_campaign_that_is_ended_while_a_primary_is_frozen_leaves_nothing_behind(
    campaign: subprocess.Popen[str],
) -> None:
    folder = folder_of(campaign.pid)
    started = {*tree_of(campaign.pid), *living(folder)}

    campaign.send_signal(signal.SIGTERM)
    campaign.send_signal(signal.SIGINT)

    assert campaign.wait() == 130
    assert len(started) > 30
    assert [pid for pid in started if is_alive(pid)] == living(folder) == []
    assert not folder.exists()
