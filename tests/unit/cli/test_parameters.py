"""How values are written on the command line."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from taskplatform.cli.parameters import json_array, moment, named_arguments, seconds


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90.0), ("90s", 90.0), ("1.5h", 5400.0), ("30d", 2_592_000.0), ("250ms", 0.25)]
)
def test_a_duration_has_a_unit_or_is_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-3s", "1h30m", "1 week"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no duration"):
        seconds(text)


def test_a_time_is_a_date_or_a_while_ago() -> None:
    assert moment("2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert moment("2026-01-31T12:00:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert datetime.now(UTC) - moment("1h") - timedelta(hours=1) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["yesterday", "2026-02-30", "9999999999d", "9" * 400])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no time"):
        moment(text)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("x=3", 3),
        ("x=true", True),
        ("x=text", "text"),
        ('x="3"', "3"),
        ("x=[1, 2]", [1, 2]),
        ("x=", ""),
        ("x=a=b", "a=b"),
    ],
)
def test_a_named_argument_is_json_or_else_text(word: str, value: Any) -> None:
    assert named_arguments([word]) == {"x": value}


@pytest.mark.parametrize("words", [["3"], ["=3"], ["a-b=3"], ["x=1", "x=2"], ["x=\udcff"]])
def test_a_malformed_argument_is_refused(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        named_arguments(words)


def test_positional_arguments_are_a_json_array() -> None:
    assert json_array('[1, "two"]') == [1, "two"]
    with pytest.raises(typer.BadParameter, match="not a JSON array"):
        json_array('{"a": 1}')
