"""How values are written on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import typer

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """Read a duration such as 90, 90s, 1.5h or 30d."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration: write 90s, 15m, 1.5h or 30d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def moment(text: str) -> datetime:
    """Read a time: an ISO date and time with a zone, or a duration ago."""
    try:
        if _DURATION.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(seconds=seconds(text))
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time: write 2026-01-31T12:00:00Z, or 1h for an hour ago") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def named_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Read `name=value` words; a value that is JSON is taken as such, anything else is text."""
    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{word!r} is not name=value")
        if name in arguments:
            raise typer.BadParameter(f"{name!r} is given twice")
        arguments[name] = _json_or_text(text)
    return arguments


def json_array(text: str) -> list[Any]:
    """Read a JSON array."""
    try:
        return msgspec.json.decode(text, type=list[Any])
    except msgspec.DecodeError as error:
        raise typer.BadParameter(f"not a JSON array: {error}") from None


def _json_or_text(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{text!r} is not UTF-8") from None
