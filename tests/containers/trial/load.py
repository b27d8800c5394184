"""The load of a trial: jobs over the load balancer, each with a key, and what came back."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from tests.native.wire import Connection, CutOff, NotSent

_PAUSE_SECONDS = 0.2
_GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One job to hand in, so many seconds after the load began, that takes so long."""

    due_seconds: float
    number: int
    job_seconds: float


@dataclass(kw_only=True)
class Load:
    """Hands in jobs over some connections, and keeps what came back.

    With `again` a request that failed is sent again under its key; without, every job is read once besides.
    """

    port: int
    key: str
    again: bool
    connections: int = 16
    jobs: dict[int, set[str]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    @property
    def failed(self) -> dict[int, int]:
        """The requests that did not succeed, by status; 0 is one that was cut off."""
        return {status: found for status, found in sorted(self.statuses.items()) if not 200 <= status < 300}

    def submit(self, plan: Iterable[Submission]) -> None:
        """Hand everything in, and return when each was answered or given up."""
        asyncio.run(self._submit_all(iter(plan)))

    @contextmanager
    def running(self, plan: Iterable[Submission], over: threading.Event) -> Iterator[None]:
        """Hand jobs in while a block runs; `over`, which ends the plan, is set at its end."""
        thread = threading.Thread(target=self.submit, args=(plan,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    async def _submit_all(self, plan: Iterator[Submission]) -> None:
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(self._work(plan, began))

    async def _work(self, plan: Iterator[Submission], began: float) -> None:
        connection = Connection(self.port, self.key)
        for one in plan:
            await _until(began + one.due_seconds)
            job = await self._submit(connection, one)
            if job and not self.again:
                await self._ask(connection, "GET", f"/v1/jobs/{job}")
        connection.close()

    async def _submit(self, connection: Connection, one: Submission) -> str | None:
        body = json.dumps({"task": "trial.nap", "args": [one.number, one.job_seconds]}).encode()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _GIVE_UP_SECONDS
        while True:
            answer = await self._ask(connection, "POST", "/v1/jobs", body, key=f"trial-{one.number}")
            if answer is not None:
                job = str(json.loads(answer)["id"])
                self.jobs.setdefault(one.number, set()).add(job)
                return job
            if not self.again or loop.time() > give_up:
                return None
            await _until(loop.time() + _PAUSE_SECONDS)

    async def _ask(
        self, connection: Connection, method: str, path: str, body: bytes = b"", *, key: str | None = None
    ) -> bytes | None:
        try:
            answer = await connection.ask(method, path, body, idempotency_key=key)
        except (CutOff, NotSent) as error:
            self.statuses[0] += 1
            self.troubles.append(f"{method} {path}: {error}")
            return None
        self.statuses[answer.status] += 1
        if 200 <= answer.status < 300:
            return answer.body
        self.troubles.append(f"{method} {path}: {answer.status} {answer.body[:300].decode(errors='replace')}")
        return None


def steady(first: int, per_second: float, job_seconds: float, over: threading.Event) -> Iterator[Submission]:
    """Give a job every so often until `over` is set."""
    for index in count():
        if over.is_set():
            return
        yield Submission(due_seconds=index / per_second, number=first + index, job_seconds=job_seconds)


async def _until(when: float) -> None:
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    loop.call_at(when, reached.set_result, None)
    await reached
