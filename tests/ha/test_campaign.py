"""The command of the failover runs: what it says of itself, and that it leaves nothing behind when it is ended."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fixtures.servers import memory
from tests.ha.faults import faults

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


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the data of servers, through which their accounts may pass; whoever still uses it is killed."""
    with tempfile.TemporaryDirectory(prefix="taskplatform-campaign-", dir=memory(), ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o711)
        yield Path(made)
        for pid in living(Path(made)):
            os.kill(pid, signal.SIGKILL)


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
def test_a_campaign_that_is_ended_while_a_primary_is_frozen_leaves_nothing_behind(folder: Path) -> None:
    command = (*_PROGRAM, "--jobs-per-second", "20", "primary frozen")
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True) as campaign:
        assert campaign.stdout is not None
        frozen = any("primary frozen" in line for line in campaign.stdout)
        started = len(living(folder))

        campaign.send_signal(signal.SIGTERM)
        campaign.send_signal(signal.SIGINT)
        status = campaign.wait()

    assert (frozen, status) == (True, 130)
    assert started > 30
    assert living(folder) == []
    assert list(folder.iterdir()) == []
