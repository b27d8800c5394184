"""How a type checker sees the SDK: right calls have a type, wrong ones are refused."""

import re
import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).with_name("typed_calls.txt")
_ROOT = Path(__file__).parents[3]


def test_mypy_refuses_the_wrong_calls_and_no_other(tmp_path: Path) -> None:
    checked = tmp_path / "typed_calls.py"
    checked.write_text(_SOURCE.read_text())

    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", str(checked)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    ).stdout

    wrong = {number for number, line in enumerate(_SOURCE.read_text().splitlines(), 1) if line.endswith("# refused")}
    assert {int(number) for number in re.findall(r"^.*typed_calls\.py:(\d+): error", said, re.MULTILINE)} == wrong, said
