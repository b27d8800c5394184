"""The platform's tasks in the comparison."""

from __future__ import annotations

from benchmarks import work
from taskplatform import task

noop = task(name="benchmarks.noop")(work.noop)
nap = task(name="benchmarks.nap")(work.nap)
