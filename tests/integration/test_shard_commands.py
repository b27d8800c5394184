"""The commands about the shard map, on two real clusters."""

import json
import subprocess
import sys
from collections.abc import Sequence

import psycopg
import pytest

from taskplatform.cli.app import run
from taskplatform.store.contract import Accepted
from tests.fixtures.shards import Sharded, unkeyed
from tests.fixtures.waiting import eventually


@pytest.fixture
def command(sharded: Sharded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Command":
    """Runs `taskplatform` with the settings of both clusters."""
    monkeypatch.setenv("TASKPLATFORM_DATABASE_URL", sharded.dsns[0])
    monkeypatch.setenv("TASKPLATFORM_DATABASE_CLUSTER_URLS", sharded.dsns[1])
    return Command(capsys)


class Command:
    """Runs a command and tells its exit status, its data and what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        status = run(arguments)
        said = self._capsys.readouterr()
        return status, said.out, said.err


def test_it_lists_clusters_and_moves_empty_shards(command: Command) -> None:
    moved = command(["shards", "move", "128-191,200", "--to", "0"])

    listed = command(["shards", "ls", "--json"])

    assert moved[0] == 0
    assert listed[0] == 0
    assert [(row["cluster"], row["map"], row["shards"], row["trouble"]) for row in json.loads(listed[1])] == [
        (0, 2, "0-191,200", None),
        (1, 2, "192-199,201-255", None),
    ]


def test_a_list_with_a_cluster_that_is_away_says_so_in_its_status(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKPLATFORM_DATABASE_CLUSTER_URLS", "postgresql://127.0.0.1:1/nowhere")

    status, out, _ = command(["shards", "ls", "--json"])

    assert status == 3
    assert [bool(row["trouble"]) for row in json.loads(out)] == [False, True]


def test_a_list_in_which_a_cluster_is_another_one_fails(
    command: Command, sharded: Sharded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKPLATFORM_DATABASE_URL", sharded.dsns[1])
    monkeypatch.setenv("TASKPLATFORM_DATABASE_CLUSTER_URLS", sharded.dsns[0])

    status, out, _ = command(["shards", "ls"])

    assert status == 1
    assert "it says that it is cluster 1" in out


def test_a_move_that_is_killed_halfway_shows_and_is_finished_by_the_same_move(
    command: Command, sharded: Sharded
) -> None:
    move = ["shards", "move", "200", "--to", "0"]
    with psycopg.connect(sharded.dsns[0]) as holding:
        # Whoever inserts jobs for long holds up the second of the two commits.
        holding.execute("LOCK TABLE jobs IN ROW EXCLUSIVE MODE")
        cut_off = subprocess.Popen([sys.executable, "-m", "taskplatform.cli", *move], stderr=subprocess.DEVNULL)
        eventually(lambda: sharded.rows(1, "SELECT max(version) FROM shard_maps") == [(2,)], within_seconds=60)
        cut_off.kill()
        cut_off.wait()
    halfway = command(["shards", "ls", "--json"])

    again = command(move)

    after = command(["shards", "ls", "--json"])
    (accepted,) = sharded.submit([unkeyed(200)], sharded.another())
    assert (halfway[0], again[0], after[0]) == (1, 0, 0)
    assert [row["trouble"] and "has not heard of map 2" in row["trouble"] for row in json.loads(halfway[1])] == [
        True,
        None,
    ]
    assert [(row["map"], row["trouble"]) for row in json.loads(after[1])] == [(2, None)] * 2
    assert isinstance(accepted, Accepted)


@pytest.mark.parametrize(("shards", "to"), [("256", "0"), ("9-3", "0"), ("x", "0"), ("1", "2")])
def test_what_cannot_be_moved_is_one_line_and_bad_usage(command: Command, shards: str, to: str) -> None:
    status, out, err = command(["shards", "move", shards, "--to", to])

    assert (status, out, len(err.splitlines())) == (2, "", 1)
