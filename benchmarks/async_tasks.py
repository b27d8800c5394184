"""The platform's tasks in the comparison, for workers of the kind async."""

from __future__ import annotations

from benchmarks import work
from taskplatform import task

noop = task(name="benchmarks.noop")(work.async_noop)
nap = task(name="benchmarks.nap")(work.async_nap)
