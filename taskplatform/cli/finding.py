"""What the doctor finds: one thing that was looked at, how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How a part is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    AWAY = "away"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `hint` says what to do about it."""

    part: str
    health: Health
    detail: str
    hint: str = ""

    @property
    def line(self) -> str:
        """All of it in one line."""
        found = f"{self.health:<8} {self.part:<13} {self.detail}"
        return f"{found} → {self.hint}" if self.hint else found


def fine(part: str, detail: str) -> Finding:
    """Say that a part is as it should be."""
    return Finding(part=part, health=Health.OK, detail=detail)


def skipped(part: str, why: str, hint: str) -> Finding:
    """Say that a part was not looked at."""
    return Finding(part=part, health=Health.SKIPPED, detail=f"not looked at: {why}", hint=hint)


def wrong(part: str, detail: str, hint: str) -> Finding:
    """Say that a promise does not hold, or that something does not work."""
    return Finding(part=part, health=Health.WRONG, detail=detail, hint=hint)


def doubtful(part: str, detail: str, hint: str) -> Finding:
    """Say that something works, and should be looked after."""
    return Finding(part=part, health=Health.WARNING, detail=detail, hint=hint)
