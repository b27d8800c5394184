"""taskplatform: hand in jobs, write tasks; see README.md."""

from taskplatform.errors import TaskplatformError
from taskplatform.job import Priority, State
from taskplatform.retry import Retry
from taskplatform.task import CurrentJob, Fail, HandBack, RetryLater, Task, current_job, task

__all__ = [
    "CurrentJob",
    "Fail",
    "HandBack",
    "Priority",
    "Retry",
    "RetryLater",
    "State",
    "Task",
    "TaskplatformError",
    "current_job",
    "task",
]
