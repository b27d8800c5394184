"""Reads the body of a task message: its arguments, and what Celery embeds beside them."""

from __future__ import annotations

from typing import Any

import msgspec
from kombu.utils.json import loads

_MARK = "__type__"


def read_body(body: str) -> tuple[list[Any], dict[str, Any], dict[str, Any] | None]:
    """Give args, kwargs and embed of a body that was checked when its message came in."""
    # kombu marks what JSON has no form for, dates and the like; without its mark there is nothing for it to restore.
    whole: tuple[list[Any], dict[str, Any], dict[str, Any] | None] = (
        loads(body) if _MARK in body else msgspec.json.decode(body)
    )
    return whole
