"""The platform's tasks in the comparison: the short one lets its jobs travel together."""

from __future__ import annotations

from benchmarks import work
from taskplatform import task

BUNDLE_JOBS = 100

noop = task(name="benchmarks.noop", bundle_jobs=BUNDLE_JOBS)(work.noop)
nap = task(name="benchmarks.nap")(work.nap)
