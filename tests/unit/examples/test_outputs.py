"""Output files: whole, equal when written twice, and only where they were asked for."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from examples.outputs import write_whole
from examples.shelf import Shelf, find
from taskplatform import Fail


def test_a_written_file_is_described_as_it_lies_there(tmp_path: Path) -> None:
    said = write_whole(str(tmp_path / "new"), "a.txt", b"hello")

    assert Path(str(said["file"])).read_bytes() == b"hello"
    assert (said["bytes"], said["sha256"]) == (5, sha256(b"hello").hexdigest())


def test_a_write_that_fails_leaves_no_draft_behind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()

    with pytest.raises(OSError, match=r"a\.txt"):
        write_whole(str(tmp_path), "a.txt", b"hello")

    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_relative_output_folder_is_hopeless() -> None:
    with pytest.raises(Fail, match="output must be an absolute path, not 'here'"):
        write_whole("here", "a.txt", b"")


@pytest.mark.parametrize("name", ["", ".", "..", "../a.txt", "a/b.txt"])
def test_a_name_with_a_folder_in_it_is_hopeless(name: str, tmp_path: Path) -> None:
    with pytest.raises(Fail, match="is not a plain file name"):
        write_whole(str(tmp_path), name, b"")


def test_a_name_that_leads_out_of_its_shelf_is_hopeless() -> None:
    with pytest.raises(Fail, match="leads out of the shelf photos"):
        find(Shelf.PHOTOS, "../tables/airports.csv")


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find(Shelf.TABLES, str(tmp_path / "mine.csv")) == tmp_path / "mine.csv"
