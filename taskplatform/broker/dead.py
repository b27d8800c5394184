"""What a message's headers say about its first death, on every broker alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def first_death(headers: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Give why and in which queue a message died first, each None where the headers do not say.

    RabbitMQ writes `x-first-death-*` and the list `x-death`, the latest first; on Redis our workers write the former.
    """
    deaths = headers.get("x-death")
    oldest = deaths[-1] if isinstance(deaths, list) and deaths and isinstance(deaths[-1], Mapping) else {}
    reason = headers.get("x-first-death-reason") or oldest.get("reason")
    queue = headers.get("x-first-death-queue") or oldest.get("queue")
    return (None if reason is None else str(reason)), (None if queue is None else str(queue))
