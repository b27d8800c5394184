"""What the documents say exists, and what exists is in the documents."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import taskplatform
from taskplatform import client
from taskplatform.cli.app import COMMANDS, GROUPS, new_app
from taskplatform.cli.settings_page import page
from taskplatform.task import Options
from tests.architecture.sources import ROOT

_PAGES = (ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


def _commands_in(path: Path) -> list[str]:
    blocks = re.findall(
        r"^```(?:console|bash|sh)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = (re.search(r"(?:^|\s)taskplatform ([a-z].*)", line) for line in lines)
    return [re.split(r"\s[|>&]", match[1])[0] for match in found if match]


_WRITTEN = [(path.name, words) for path in _PAGES for words in _commands_in(path)] + [
    ("--help", example.partition("taskplatform ")[2])
    for commands in (COMMANDS, *(commands for _, _, commands in GROUPS))
    for _, _, example in commands
]


@pytest.mark.parametrize(("where", "words"), _WRITTEN, ids=[f"{where}: {words}" for where, words in _WRITTEN])
def test_a_command_that_is_written_down_is_understood(
    where: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.ndjson").touch()

    _parse(typer.main.get_command(new_app()), shlex.split(words, comments=True))


def _parse(command: Any, words: list[str]) -> None:
    with command.make_context("taskplatform", words) as context:
        if hasattr(command, "resolve_command"):
            _, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            _parse(below, rest)


def test_every_command_is_on_the_page_about_the_command_line() -> None:
    names = [name for name, _, _ in COMMANDS]
    names += [f"{group} {name}" for group, _, commands in GROUPS for name, _, _ in commands]
    written = "\n".join(_commands_in(ROOT / "docs" / "cli.md"))

    assert [name for name in names if not re.search(rf"^{name}\b", written, re.MULTILINE)] == []


def test_the_page_about_settings_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == f"{page()}\n", (
        "taskplatform settings --markdown > docs/settings.md"
    )


def test_every_option_of_a_submission_is_on_the_page_about_the_sdk() -> None:
    written = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")

    assert [name for name in Options.__dataclass_fields__ if f"`{name}`" not in written] == []


def test_every_error_of_the_sdk_is_on_its_page() -> None:
    written = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
    errors = [name for name in client.__all__ if isinstance(getattr(client, name), type(Exception))]
    raised = [name for name in errors if issubclass(getattr(client, name), Exception)]
    roots = {"ClientError", "ApiError", "JobError"}

    assert [name for name in raised if name not in roots and f"`{name}`" not in written] == []


@pytest.mark.parametrize("module", [taskplatform, client], ids=lambda module: module.__name__)
def test_the_public_names_are_exactly_those_that_are_listed(module: Any) -> None:
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (getattr(value, "__module__", None) or "").startswith("taskplatform.")
    }

    assert sorted(module.__all__) == list(module.__all__)
    assert public == set(module.__all__)
