"""An API with a broken promise: it answers 202 first and stores a second later, so that a kill loses jobs."""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import Sequence
from datetime import UTC, datetime
from unittest.mock import patch

from taskplatform.intake import Intake, Stored
from taskplatform.job import NewJob
from taskplatform.store.contract import Accepted

_LATE_SECONDS = 1.0
_honest = Intake.hand_in
_owed: set[asyncio.Future[list[Stored]]] = set()


def _hand_in(self: Intake, jobs: Sequence[NewJob], *, whole: bool = False) -> asyncio.Future[list[Stored]]:
    loop = asyncio.get_running_loop()

    def store() -> None:
        stored = _honest(self, jobs, whole=whole)
        _owed.add(stored)
        stored.add_done_callback(_owed.discard)

    loop.call_later(_LATE_SECONDS, store)
    now = datetime.now(UTC)
    answer: asyncio.Future[list[Stored]] = loop.create_future()
    answer.set_result(
        [Stored(verdict=Accepted(id=job.id, created_at=now, outbox_id=None), state=job.state) for job in jobs]
    )
    return answer


def main() -> None:
    """Run the API with its intake in a hurry."""
    with patch.object(Intake, "hand_in", _hand_in):
        runpy.run_module("api", run_name="__main__")


if __name__ == "__main__":
    main()
