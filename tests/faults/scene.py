"""A small scene on a native stack: some jobs handed in by the test itself, their effects, and the verdict."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec

from tests.faults.evidence import backlog, gather, watch
from tests.faults.history import Effect, Exchange, Journal, read_lines
from tests.faults.ledger import Ledger, judge
from tests.faults.plan import Kind, kind_of
from tests.faults.platform_api import ask, show
from tests.faults.tasks import EFFECTS_VARIABLE
from tests.fixtures.waiting import eventually
from tests.native.servers import Servers
from tests.native.stack import Programs, Stack

SETTINGS = {
    "task_modules": ("tests.faults.tasks",),
    "lease_seconds": 2.0,
    "lease_renew_seconds": 0.5,
    "stranded_after_seconds": 2.0,
    "log_level": "WARNING",
}
_SEED = 5
_DRAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A stack whose jobs write their effects into `folder`."""

    stack: Stack
    folder: Path

    @property
    def live(self) -> int:
        """How many jobs have not ended."""
        return backlog(self.stack.home.database_url, lambda: 0).live

    def effects(self, *, done: bool, attempt: int | None = None) -> list[Effect]:
        """Give what the jobs have written down so far."""
        seen = [effect for path in (self.folder / "effects").glob("*.jsonl") for effect in read_lines(path, Effect)]
        return [effect for effect in seen if effect.done is done and attempt in (None, effect.attempt)]

    def submit(self, task: str, count: int = 1, *, skip: int = 0, note: bool = True) -> set[str]:
        """Hand in so many jobs that are to succeed, as one batch, and give their ids.

        Their numbers come after those of `skip` others; what is not noted is not expected to be there at the end.
        """
        above = (skip + count) * 10
        numbers = [number for number in range(above) if kind_of(_SEED, number) is Kind.NOOP][skip : skip + count]
        body = msgspec.json.encode([{"task": task, "args": [number]} for number in numbers])
        sent_at = time.time()
        answer = asyncio.run(ask(self.stack, "POST", "/v1/jobs:batch", body))
        exchange = Exchange(
            request=0,
            numbers=numbers,
            keys=[None] * count,
            payload_sha256=hashlib.sha256(body).hexdigest(),
            sent_at=sent_at,
            answered_at=time.time(),
            status=202,
            ids=[item["id"] for item in answer["items"]],
        )
        if note:
            Journal(self.folder / "history.jsonl").add(exchange)
        return {job for job in exchange.ids if job}

    def judge(self) -> Ledger:
        """Wait until everything has ended, and compare all sides."""
        database_url = self.stack.home.database_url
        eventually(lambda: backlog(database_url, self.stack.messages).empty, within_seconds=_DRAIN_SECONDS)
        evidence = gather(
            self.folder / "history.jsonl", self.folder / "effects", database_url, lambda ids: show(self.stack, ids)
        )
        return judge(evidence, _SEED)


@contextmanager
def scene(servers: Servers, programs: Programs | None = None, **settings: Any) -> Iterator[Scene]:
    """Start a platform whose rescue takes two seconds, and stop it again."""
    folder = Path(mkdtemp(prefix="scene-", dir=servers.folder))
    (folder / "effects").mkdir()
    with Stack(
        servers, {**SETTINGS, **settings}, programs or Programs(), {EFFECTS_VARIABLE: str(folder / "effects")}
    ) as stack:
        watch(stack.home.database_url)
        yield Scene(stack, folder)
