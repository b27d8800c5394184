"""What a worker's parent and its pool say to each other, whichever pool it is."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

from taskplatform.job import Failed, Failure, Outcome, Trouble
from workers.checkpoints import Checkpoints
from workers.held import Held
from workers.loop import Loop

_TYPES_OF_TIMEOUT = ("celery.exceptions.TimeLimitExceeded", "builtins.TimeoutError", "builtins.Exception")


class Doom(Enum):
    """Why the pool itself stops a job."""

    TIMEOUT = auto()
    CANCELLED = auto()
    DRAINED = auto()


class Floor(Protocol):
    """Who hands out jobs and hears what becomes of them; `checkpoints` has how far they have come."""

    checkpoints: Checkpoints

    def outcome(self, held: Held, outcome: Outcome, started: float, stopped: float, seconds: float) -> None:
        """A job ended; times are epoch seconds, `seconds` how long it ran."""

    def unstarted(self, jobs: Sequence[Held]) -> None:
        """These were handed over and have not started; nobody has them any more."""

    def interrupted(self, held: Held) -> None:
        """A job was stopped through no fault of its own."""

    def free(self) -> None:
        """The pool can take more."""


class Pool(Protocol):
    """Who runs jobs; it tells the `floor` everything, in the thread of the `loop`."""

    floor: Floor
    loop: Loop

    @property
    def num_processes(self) -> int:
        """How many jobs can run at once."""

    @property
    def responsive(self) -> bool:
        """Whether jobs that are handed over start."""

    def room(self) -> bool:
        """Whether a quick job could be handed over now, or any job at all."""

    def hand_over(self, jobs: list[Held], *, quick: bool) -> bool:
        """Take jobs to run one after the other; False when there is no room for them."""

    def stop_job(self, held: Held) -> None:
        """Interrupt a job that lost its row."""

    def drain(self) -> None:
        """Let jobs know that the worker is about to end, those that start from now on too."""

    def kill_all(self) -> None:
        """Stop whatever still runs; the jobs are reported as interrupted."""


def timed_out(held: Held, what: str) -> Failed:
    """Give the outcome of a job that ran into its hard limit; `what` says what was done to it."""
    text = f"it ran into its hard limit of {held.hard_limit_seconds} s and was {what}"
    return Failed(failure=Failure(trouble=Trouble.TIMEOUT, error_types=_TYPES_OF_TIMEOUT, message=text))
