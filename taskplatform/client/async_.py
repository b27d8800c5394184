"""The client for event loops: sends what the flows ask for, many calls at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack, overload
from uuid import UUID

import httpx2

from taskplatform.client import _http
from taskplatform.client._base import Answer, Effort, Flow, NoAnswer, Reply, Request, Wait
from taskplatform.client._flows import Flows, JobFilters, LetterFilters
from taskplatform.client._gather import Gather
from taskplatform.client._outcome import Outcome, accepted, handles_of, outcome_of
from taskplatform.client._trace import leg
from taskplatform.client.calls import Call, batch_item, call, named
from taskplatform.client.views import AttemptView, DeadLetterView, JobView, TaskView
from taskplatform.overview import Overview
from taskplatform.task import Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AsyncJobHandle(Generic[R]):
    """A job that was handed in and will give an R."""

    def __init__(self, client: AsyncClient, job_id: UUID, task: Task[..., R], seen: JobView | None = None) -> None:
        self.id = job_id
        self.task = task
        self._client = client
        self._seen = seen

    def __repr__(self) -> str:
        return f"<AsyncJobHandle {self.id} {self.task.name}>"

    def __await__(self) -> Generator[Any, None, R]:
        return self.result().__await__()

    def saw(self, job: JobView) -> None:
        """Remember how the job stands, so that an ended one is not asked for again."""
        self._seen = job

    async def result(self, timeout_seconds: float | None = None) -> R:
        """Wait until the job has ended, and give its result.

        Raises JobFailed, JobCancelled or JobExpired when there is none, JobTimeout when the time is over.
        """
        return outcome_of(await self.wait(timeout_seconds), self.task)

    async def wait(self, timeout_seconds: float | None = None) -> JobView:
        """Wait until the job has ended, at most so long, and give it as it stands."""
        if self._seen is None or not self._seen.done:
            self._seen = await self._client.wait(self.id, timeout_seconds)
        return self._seen

    async def status(self) -> JobView:
        """Read the job as it stands now."""
        self._seen = await self._client.get(self.id)
        return self._seen

    async def attempts(self) -> list[AttemptView]:
        """Read every run of the job in order."""
        return await self._client.attempts(self.id)

    async def cancel(self) -> JobView:
        """Cancel the job; one that has ended stays as it is."""
        self._seen = await self._client.cancel(self.id)
        return self._seen


class Batching:
    """Hands in single jobs of one client together: what comes within a few milliseconds is one request."""

    def __init__(self, client: AsyncClient, gather: Gather[bytes, Outcome]) -> None:
        self._client = client
        self._gather = gather

    @overload
    async def submit(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> AsyncJobHandle[R]: ...

    @overload
    async def submit(self, task: str, /, *args: Any, **kwargs: Any) -> AsyncJobHandle[Any]: ...

    async def submit(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> AsyncJobHandle[Any]:
        """Hand in a job; once this returns it is kept. Raises as `AsyncClient.submit` does."""
        return await self.send(call(task, *args, **kwargs))

    async def send(self, prepared: Call[R]) -> AsyncJobHandle[R]:
        """Hand in a prepared call."""
        item = accepted(await self._gather.put(batch_item(prepared)))
        return AsyncJobHandle(self._client, item.id, prepared.task)


class AsyncClient:
    """The platform for an event loop; an asynchronous context manager that closes its connections.

    `key` is an API key (`tp_…`). While the connection fails or the platform is away, a request is repeated as `effort`
    allows; every submission carries an idempotency key, so that no repetition makes a second job. `transport` replaces
    the network.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        key: str | None = None,
        effort: Effort | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._flows = Flows(effort or Effort())
        self._http = httpx2.AsyncClient(
            base_url=url, headers=_http.headers(key), limits=_http.LIMITS, transport=transport
        )
        self._sleep = sleep
        self._memory = _http.Memory()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @overload
    async def submit(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> AsyncJobHandle[R]: ...

    @overload
    async def submit(self, task: str, /, *args: Any, **kwargs: Any) -> AsyncJobHandle[Any]: ...

    async def submit(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> AsyncJobHandle[Any]:
        """Hand in a job; once this returns it is kept. Options: `task.options(…)`, or `named(name, …)`.

        Raises Rejected for what the platform does not take, and the rest of ApiError.
        """
        return await self.send(call(task, *args, **kwargs))

    async def send(self, prepared: Call[R], *, wait_seconds: float = 0.0) -> AsyncJobHandle[R]:
        """Hand in a prepared call; with `wait_seconds` a quick job comes back ended, in one round trip."""
        job = await self._run(self._flows.submit(prepared, wait_seconds))
        return AsyncJobHandle(self, job.id, prepared.task, job)

    async def submit_many(self, calls: Iterable[Call[R]], *, batch_size: int = 500) -> list[AsyncJobHandle[R]]:
        """Hand in many jobs with few requests; handles come in the order of the calls.

        Raises BatchRejected at the end when some were refused; it holds the handles of the others. After any other
        error the same calls may be handed in again: each keeps its key.
        """
        prepared = list(calls)
        items = (batch_item(each) for each in prepared)
        outcome = await self._run(self._flows.submit_all(items, batch_size))
        return handles_of(prepared, outcome, partial(AsyncJobHandle, self))

    @asynccontextmanager
    async def batching(self, *, window_seconds: float = 0.003, batch_size: int = 500) -> AsyncIterator[Batching]:
        """Hand in together what comes within `window_seconds`; the end of the block waits for all of it."""

        async def flush(items: list[bytes]) -> list[Outcome]:
            return await self._run(self._flows.submit_each(items, batch_size))

        gather = Gather(flush, window_seconds=window_seconds, batch_size=batch_size)
        try:
            yield Batching(self, gather)
        finally:
            await gather.close()

    def handle(self, job_id: UUID | str, task: Task[..., R] | None = None) -> AsyncJobHandle[R]:
        """Give the handle of a job that was handed in elsewhere; nothing is asked of the platform."""
        return AsyncJobHandle(self, UUID(str(job_id)), task or named("unknown"))

    async def as_completed(
        self, handles: Iterable[AsyncJobHandle[R]], timeout_seconds: float | None = None
    ) -> AsyncIterator[AsyncJobHandle[R]]:
        """Give each handle when its job has ended, with few requests. Raises JobTimeout when the time is over."""
        pending: dict[UUID, list[AsyncJobHandle[R]]] = {}
        for handle in handles:
            pending.setdefault(handle.id, []).append(handle)
        deadline = self._flows.deadline(timeout_seconds)
        while pending:
            for job in await self._run(self._flows.some_done(list(pending), deadline)):
                for handle in pending.pop(job.id):
                    handle.saw(job)
                    yield handle

    async def get(self, job_id: UUID | str) -> JobView:
        """Read a job. Raises NotFound."""
        return await self._run(self._flows.get(job_id))

    async def wait(self, job_id: UUID | str, timeout_seconds: float | None = None) -> JobView:
        """Read a job when it has ended, or as it stands when the time is over."""
        return await self._run(self._flows.wait(job_id, timeout_seconds))

    async def cancel(self, job_id: UUID | str) -> JobView:
        """Cancel a job; one that has ended stays as it is. Raises NotFound."""
        return await self._run(self._flows.cancel(job_id))

    async def attempts(self, job_id: UUID | str) -> list[AttemptView]:
        """Read every run of a job in order."""
        return await self._run(self._flows.attempts(job_id))

    async def jobs(self, *, page_size: int = 100, **filters: Unpack[JobFilters]) -> AsyncIterator[JobView]:
        """Read jobs, the newest first, page by page as they are taken."""
        token = ""
        while True:
            page = await self._run(self._flows.jobs(filters, token, page_size))
            for job in page.jobs:
                yield job
            if not (token := page.next_page_token):
                return

    async def dead_letters(
        self, *, page_size: int = 100, **filters: Unpack[LetterFilters]
    ) -> AsyncIterator[DeadLetterView]:
        """Read dead letters, the newest first, page by page as they are taken."""
        token = ""
        while True:
            page = await self._run(self._flows.dead_letters(filters, token, page_size))
            for letter in page.dead_letters:
                yield letter
            if not (token := page.next_page_token):
                return

    async def dead_letter(self, letter_id: int) -> DeadLetterView:
        """Read one dead letter whole. Raises NotFound."""
        return await self._run(self._flows.dead_letter(letter_id))

    async def replay(self, letter_id: int) -> JobView:
        """Hand a dead letter in again; gives its job. Raises NotFound, and Rejected when that was done before."""
        return await self._run(self._flows.replay(letter_id))

    async def overview(self) -> Overview:
        """Count the live jobs of all tenants, and list the workers; for a key of the scope platform:read."""
        return await self._run(self._flows.overview())

    async def tasks(self) -> list[TaskView]:
        """Read which tasks the workers have announced."""
        return await self._run(self._flows.tasks())

    async def _run(self, flow: Flow[T]) -> T:
        reply: Reply = None
        while True:
            try:
                step = flow.send(reply)
            except StopIteration as end:
                value: T = end.value
                return value
            match step:
                case Wait():
                    await self._sleep(step.seconds)
                    reply = None
                case Request():
                    reply = await self._send(step)

    async def _send(self, request: Request) -> Answer | NoAnswer:
        with leg(request) as way:
            try:
                response = await self._http.request(**_http.parts(request, self._memory, way.headers))
            except httpx2.RequestError as error:
                return way.over(_http.no_answer(error, self._http.base_url))
            return way.over(self._memory.note(_http.answer(response)))
