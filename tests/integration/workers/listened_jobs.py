"""Tasks of the platform in a worker where somebody listens to Celery's signals."""

from typing import Any

from celery import current_task
from celery.signals import task_prerun

from taskplatform import task

_heard: list[str] = []


@task(name="heard")
def heard() -> list[str]:
    return _heard


@task(name="traced")
def traced() -> bool:
    return bool(current_task)


def _listen(task_id: str, task: Any, **_: Any) -> None:
    _heard.append(task.name)


task_prerun.connect(_listen, weak=False)
