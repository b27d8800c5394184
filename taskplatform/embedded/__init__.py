"""The whole platform on one machine, from Python packages alone: `taskplatform up`.

Real Postgres and Valkey out of wheels, and the same API, worker, dispatcher and Flower as in production, under one
supervisor.
"""

from taskplatform.embedded.command import run
from taskplatform.embedded.platform import Platform

__all__ = ["Platform", "run"]
