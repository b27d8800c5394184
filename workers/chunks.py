"""What is handed to a child in one piece: enough quick jobs to be worth it, or one other."""

from __future__ import annotations

from collections import deque

from workers.held import Held, Limits, Stage
from workers.pace import CHUNK_SECONDS, Pace

_ALONE_BELOW_SECONDS = 1.0


def next_chunk(ready: deque[Held], limits: Limits, pace: Pace) -> list[Held]:
    """Take the next jobs for one child: about 10 ms of quick ones, or a single other one; empty when none is ready."""
    most = min(limits.chunk_jobs, -(-len(ready) // limits.processes))
    chunk: list[Held] = []
    seconds = 0.0
    while ready and len(chunk) < max(most, 1):
        held = ready[0]
        alone = runs_alone(held, pace)
        expected = pace.seconds(held.envelope.task) or 0.0
        if chunk and (alone or seconds + expected > CHUNK_SECONDS):
            break
        ready.popleft()
        held.stage = Stage.RUNNING
        chunk.append(held)
        seconds += expected
        if alone:
            break
    return chunk


def runs_alone(held: Held, pace: Pace) -> bool:
    """Tell whether a job must not share a chunk with others."""
    hard = held.hard_limit_seconds
    tight = hard is not None and hard < _ALONE_BELOW_SECONDS
    return held.suspect or tight or not pace.quick(held.envelope.task)
