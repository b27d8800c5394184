"""The programs that `make check-deploy` installs, as the tests find them."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = os.environ.get("DEPLOY_TOOLS", str(ROOT / ".venv-deploy" / "bin"))


def tool(name: str) -> str:
    """Find a program of `make check-deploy`; without it the test is skipped."""
    found = shutil.which(name, path=TOOLS)
    if found is None:
        pytest.skip(f"{name} is not installed: `make check-deploy` installs it")
    return found
