"""Tasks of the platform in a worker where nobody listens to Celery's signals."""

from celery import current_task
from celery.exceptions import Ignore

from taskplatform import task


@task(name="traced")
def traced() -> bool:
    return bool(current_task)


@task(name="ignoring")
def ignoring() -> None:
    raise Ignore
