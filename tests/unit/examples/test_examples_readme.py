"""The README of the examples: its pack works as printed, and it names every task there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import examples
from examples import chaos, documents, photos, tables
from taskplatform import Fail
from taskplatform.task import tasks_in

README = Path(examples.__file__).with_name("README.md").read_text()


@pytest.fixture
def pack() -> dict[str, Any]:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {"__name__": "mine"}
    exec(compile(found.group(1), "mine.py", "exec"), names)
    return names


def test_the_pack_in_the_readme_works_as_printed(pack: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")

    assert pack["count_lines"](str(path)) == {"path": str(path), "lines": 2}


def test_the_pack_in_the_readme_refuses_what_it_says_it_refuses(pack: dict[str, Any]) -> None:
    with pytest.raises(Fail, match="is not a text file"):
        pack["count_lines"]("a.jpg")


def test_the_readme_names_every_task_of_the_packs() -> None:
    named = set(re.findall(r"`((?:photos|tables|documents|chaos)\.\w+)`", README))

    assert named == set(tasks_in([photos, tables, documents, chaos]))
