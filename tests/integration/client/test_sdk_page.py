"""Every example of docs/sdk.md runs as it is written, in order, against a real platform."""

import re
from pathlib import Path

import pytest

from taskplatform.client import Client
from tests.native.stack import Stack

_PAGE = Path(__file__).parents[3] / "docs" / "sdk.md"


def test_the_examples_run_as_written(platform: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    text = _PAGE.read_text(encoding="utf-8")
    text = text.replace("http://127.0.0.1:8080", platform.settings.api_url).replace("tp_…", platform.key)
    names: dict[str, object] = {"__name__": "page"}

    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(_PAGE), "exec"), names)
    client = names["client"]
    assert isinstance(client, Client)
    client.close()

    said = capsys.readouterr().out
    assert "words in job" in said
    assert "taskplatform.task.Fail not_retryable" in said
    assert "invalid_arguments ['/kwargs" in said
