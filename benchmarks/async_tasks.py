"""The platform's tasks in the comparison, for workers of the kind async: in a bundle, too, they wait side by side."""

from __future__ import annotations

from benchmarks import work
from benchmarks.tasks import BUNDLE_JOBS
from taskplatform import task

noop = task(name="benchmarks.noop", bundle_jobs=BUNDLE_JOBS)(work.async_noop)
nap = task(name="benchmarks.nap", bundle_jobs=BUNDLE_JOBS)(work.async_nap)
