"""Tasks of the platform itself, which every worker knows."""

from __future__ import annotations

from taskplatform.task import task

CANARY = "taskplatform.canary"


@task(name=CANARY, inline=True, hard_limit_seconds=30.0)
def canary() -> None:
    """Do nothing: a job that shows that jobs run."""
