"""Which answers of a replica or a cache may be shown to whom, and how long a silent replica is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from uuid import UUID

from taskplatform.freshness import Position
from taskplatform.job import Job

FIRST_REST_SECONDS = 0.5
LONGEST_REST_SECONDS = 15.0
"""How long a replica that did not answer is left alone, at first and at most."""


def may_show(job: Job, since: Position | None, seen: Position) -> bool:
    """Tell whether a job that was read where everything up to `since` is known may be shown to who has seen `seen`.

    One that never changes any more always may; `since` is None where it is not known.
    """
    return job.settled or (since is not None and since.includes(seen))


def showable(found: Mapping[UUID, Job], since: Position | None, seen: Position) -> dict[UUID, Job]:
    """Give those of the found jobs that may be shown; whatever is missing has to be looked for at the primary."""
    return {job_id: job for job_id, job in found.items() if may_show(job, since, seen)}


def rest_seconds(failures: int, random: Random) -> float:
    """Tell how long to leave a replica alone after so many failures in a row."""
    longest = min(FIRST_REST_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_REST_SECONDS)
    return longest * random.uniform(0.5, 1.0)
