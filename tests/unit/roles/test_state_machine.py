"""The page about the state machine says what the table says."""

import re
from pathlib import Path

from taskplatform.job import TRANSITIONS, State

PAGE = (Path(__file__).parents[3] / "docs" / "state_machine.md").read_text(encoding="utf-8")


def test_the_page_lists_every_arrow_and_who_follows_it() -> None:
    listed = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w+) \|$", PAGE, re.MULTILINE)

    assert sorted(listed) == sorted((str(before), str(after), str(who)) for (before, after), who in TRANSITIONS.items())


def test_the_page_explains_every_state() -> None:
    explained = re.findall(r"^\| `(\w+)` \| [^|`]+.* \| [^|]+ \|$", PAGE.partition("## Arrows")[0], re.MULTILINE)

    assert explained == [str(state) for state in State]
