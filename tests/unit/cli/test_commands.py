"""The shape of the command line: help, exit status, one line for every error."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from taskplatform.cli import app, main
from taskplatform.cli.app import COMMANDS, GROUPS
from taskplatform.errors import NotFound, OutcomeUnknown, SettingsError, StoreUnavailable, TaskplatformError


def _every_command() -> Iterator[list[str]]:
    yield from ([name] for name, _, _ in COMMANDS)
    for group, _, commands in GROUPS:
        yield from ([group, name] for name, _, _ in commands)


@pytest.mark.parametrize("words", list(_every_command()), ids=" ".join)
def test_every_command_has_help_with_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0

    assert "Example: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["status"], "Missing argument 'ID'"),
        (["status", "seven"], "Invalid value for 'ID'"),
        (["submit", "demo.add", "3"], "'3' is not name=value"),
        (["submit", "demo.add", "--delay", "soon"], "'soon' is no duration"),
        (["submit", "demo.add", "-o", "colour=red"], "unknown field `colour`"),
        (["ls", "--state", "gone"], "Invalid value for '--state'"),
        (["submit-many", "no-such-file.ndjson"], "No such file or directory"),
        (["dlq", "replay"], "name letters by number, or give --reason or --task"),
        (["dlq", "replay", "7", "--reason", "poison"], "name letters by number, or give --reason or --task"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2

    error = capsys.readouterr().err
    assert error.startswith("taskplatform: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_misspelt_setting_is_named_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKPLATFORM_API_ULR", "http://127.0.0.1")

    assert main(["ls"]) == 2

    assert capsys.readouterr().err == "taskplatform: unknown setting 'api_ulr'; did you mean 'api_url'?\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SettingsError("no"), 2),
        (StoreUnavailable("away"), 3),
        (OutcomeUnknown("cut off"), 3),
        (NotFound("gone"), 1),
        (TaskplatformError("anything"), 1),
        (KeyboardInterrupt(), 130),
        (ValueError("a fault of ours"), 1),
    ],
)
def test_an_error_has_a_status_and_never_a_stack_trace(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(app, "COMMANDS", (("fail", fail, "taskplatform fail"), ("other", fail, "")))

    assert main(["fail"]) == status

    assert "Traceback" not in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    heavy = {"celery", "kombu", "psycopg", "sqlalchemy", "pydantic", "fastapi", "httpx2", "rich"}

    loaded = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom taskplatform.cli import main\nmain(['--help'])\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()

    assert heavy.intersection(loaded) == set()


def test_without_the_extra_the_command_says_what_is_missing() -> None:
    blocked = "import sys\nsys.modules['typer'] = None\nfrom taskplatform.cli import main\nsys.exit(main(['ls']))"

    said = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False, timeout=60)

    assert said.returncode == 2
    assert said.stderr == "taskplatform: typer is missing; the command line needs taskplatform[server]\n"


def test_an_interrupt_while_the_command_loads_leaves_no_stack_trace() -> None:
    interrupted = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from taskplatform.cli import main\n"
        "sys.exit(main(['version']))"
    )

    said = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, check=False, timeout=60)

    assert (said.returncode, said.stderr) == (130, "")


@pytest.mark.parametrize(("where", "status", "lines"), [(">&-", 0, 0), ("2>&-", 0, 0), ("> /dev/full", 1, 1)])
def test_output_that_leads_nowhere_leaves_no_stack_trace(where: str, status: int, lines: int) -> None:
    command = f'exec "{sys.executable}" -m taskplatform.cli version {where}'

    said = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)

    assert (said.returncode, said.stderr.count("\n")) == (status, lines), said.stderr


@pytest.mark.parametrize("process", ["api", "worker", "dispatcher"])
def test_a_process_that_cannot_start_says_so_in_one_line(process: str) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "taskplatform.cli", process],
        env={"TASKPLATFORM_DATABASE_URL": "postgresql://127.0.0.1:1/nowhere"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert "signing_keys is empty" in said.stderr


def test_the_versions_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0

    assert '"taskplatform": ' in capsys.readouterr().out
