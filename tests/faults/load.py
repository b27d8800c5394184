"""The load of a fault run, a process of its own: submits the plan over HTTP and writes down every exchange."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from taskplatform.retry import Retry, backoff
from tests.faults.history import Exchange, Journal
from tests.faults.plan import Again, Planned, Submission, submissions
from tests.native.wire import Answer, Connection, CutOff, NotSent

_ROOT = Path(__file__).resolve().parents[2]
# That of the SDK, beside what a refusal asks for: hundreds that hurry would keep a small platform from coming back.
_RETRY = Retry(backoff_seconds=0.2, max_backoff_seconds=10.0)
_GIVE_UP_SECONDS = 60.0
_REUSED_NUMBER = -1


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to submit, where, how fast, and where to write the history.

    With many connections the load is open: it keeps its pace while the platform does not answer.
    """

    port: int
    key: str
    seed: int
    jobs: int
    over_seconds: float
    history: str
    connections: int = 12
    keyless_share: float = 0.0


@dataclass(slots=True)
class Generator:
    """Works off the plan with its connections, at the plan's pace as long as one of them is free."""

    load: Load
    journal: Journal
    _random: Random = field(init=False)
    _plan: Iterator[tuple[float, Submission]] = field(init=False)

    def __post_init__(self) -> None:
        self._random = Random(self.load.seed)
        self._plan = _paced(self.load)

    async def run(self) -> None:
        """Submit everything, and return when each submission was answered or given up."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as connections:
            for _ in range(self.load.connections):
                connections.create_task(self._work(began))
        self.journal.sync()

    async def _work(self, began: float) -> None:
        connection = Connection(self.load.port, self.load.key)
        for due, submission in self._plan:
            await _until(began + due)
            if await self._submit(connection, submission) and submission.again is Again.SAME:
                await self._submit(connection, submission)
            elif submission.again is Again.OTHER:
                await self._submit(connection, submission, reused=True)
        connection.close()

    async def _submit(self, connection: Connection, submission: Submission, *, reused: bool = False) -> bool:
        give_up = time.monotonic() + _GIVE_UP_SECONDS
        for failures in count(1):
            exchange, asked_seconds = await self._exchange(connection, submission, reused=reused)
            self.journal.add(exchange)
            may_repeat = not exchange.sent or all(exchange.keys)
            if all(exchange.ids) or not may_repeat or _is_final(exchange):
                return all(exchange.ids)
            left = tuple(job for job, job_id in zip(submission.jobs, exchange.ids, strict=True) if not job_id)
            submission = replace(submission, jobs=left)
            pause = asked_seconds + backoff(_RETRY, failures, self._random)
            if time.monotonic() + pause > give_up:
                break
            await _until(asyncio.get_running_loop().time() + pause)
        return False

    async def _exchange(
        self, connection: Connection, submission: Submission, *, reused: bool
    ) -> tuple[Exchange, float]:
        body = _body(submission, reused=reused)
        sent_at = time.time()
        path = "/v1/jobs:batch" if submission.batch else "/v1/jobs"
        key = None if submission.batch else submission.jobs[0].key
        sent, error = True, ""
        try:
            answer = await connection.ask("POST", path, body, idempotency_key=key)
        except NotSent as refused:
            answer, sent, error = Answer(status=0, body=b""), False, str(refused)
        except CutOff as cut:
            answer, error = Answer(status=0, body=b""), str(cut)
        accepted = 200 <= answer.status < 300
        exchange = Exchange(
            request=submission.number,
            numbers=[job.number for job in submission.jobs],
            keys=[job.key for job in submission.jobs],
            payload_sha256=hashlib.sha256(body).hexdigest(),
            sent_at=sent_at,
            answered_at=time.time(),
            status=answer.status,
            ids=_ids(answer.body, submission) if accepted else [None] * len(submission.jobs),
            sent=sent,
            reused=reused,
            error=error or ("" if accepted else answer.body[:200].decode(errors="replace")),
        )
        return exchange, answer.retry_after_seconds


@contextmanager
def loading(load: Load) -> Iterator[subprocess.Popen[bytes]]:
    """Run a load as a process of its own, which is killed on the way out if it has not ended."""
    process = subprocess.Popen([sys.executable, "-m", "tests.faults.load"], cwd=_ROOT, stdin=subprocess.PIPE)
    try:
        if process.stdin is not None:
            process.stdin.write(msgspec.json.encode(load))
            process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait()


async def _until(when: float) -> None:
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    loop.call_at(when, reached.set_result, None)
    await reached


def _paced(load: Load) -> Iterator[tuple[float, Submission]]:
    done = 0
    for submission in submissions(load.seed, load.jobs, keyless_share=load.keyless_share):
        yield load.over_seconds * done / load.jobs, submission
        done += len(submission.jobs)


def _item(job: Planned, *, reused: bool) -> dict[str, Any]:
    return {"task": f"faults.{job.kind}", "args": [_REUSED_NUMBER if reused else job.number]}


def _body(submission: Submission, *, reused: bool) -> bytes:
    items = [_item(job, reused=reused) for job in submission.jobs]
    if not submission.batch:
        return msgspec.json.encode(items[0])
    for item, job in zip(items, submission.jobs, strict=True):
        if job.key:
            item["idempotency_key"] = job.key
    return msgspec.json.encode(items)


def _ids(body: bytes, submission: Submission) -> list[str | None]:
    answer = msgspec.json.decode(body)
    items = answer["items"] if submission.batch else [answer]
    return [item.get("id") for item in items]


def _is_final(exchange: Exchange) -> bool:
    return 400 <= exchange.status < 500 and exchange.status not in (408, 409, 425, 429)


def main() -> None:
    """Read the load from the standard input, and submit it."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    asyncio.run(Generator(load, Journal(Path(load.history))).run())


if __name__ == "__main__":
    main()
