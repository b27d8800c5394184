"""Both clients against a server that cuts, stalls and refuses: the same key again, the pause it asks for, an end."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from taskplatform import Retry
from taskplatform.client import AsyncClient, AsyncJobHandle, Client, Effort, NoAnswer, Rejected, call
from taskplatform.errors import SettingsError
from tests.integration.client.faulty_api import Fault, FaultyApi, running

_EFFORT = Effort(retry=Retry(max_attempts=4, backoff_seconds=0.001, jitter=0.0), timeout_seconds=0.3)

Add = Callable[[str, list[float]], object]


def _add_blocking(url: str, waits: list[float]) -> object:
    with Client(url, effort=_EFFORT, sleep=waits.append) as client:
        return client.submit("demo.add", 1, 2).result()


def _add_in_a_loop(url: str, waits: list[float]) -> object:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def add() -> object:
        async with AsyncClient(url, effort=_EFFORT, sleep=sleep) as client:
            return await (await client.submit("demo.add", 1, 2))

    return asyncio.run(add())


@pytest.fixture
def api() -> Iterator[FaultyApi]:
    with running(FaultyApi()) as api:
        yield api


@pytest.fixture(params=[_add_blocking, _add_in_a_loop], ids=["Client", "AsyncClient"])
def add(request: pytest.FixtureRequest) -> Add:
    chosen: Add = request.param
    return chosen


@pytest.mark.parametrize("fault", list(Fault))
def test_a_submission_survives_each_fault_under_one_key(api: FaultyApi, add: Add, fault: Fault) -> None:
    api.faults = [fault, fault]

    result = add(api.url, [])

    assert result == 3
    assert len(api.keys) == 3
    assert len(set(api.keys)) == 1
    assert api.keys[0]


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.LIMITED, Fault.PROXY_PAGE])
def test_the_pause_that_the_api_asks_for_is_kept(api: FaultyApi, add: Add, fault: Fault) -> None:
    api.faults = [fault]
    waits: list[float] = []

    add(api.url, waits)

    assert waits == [2.001]


def test_after_the_last_attempt_the_caller_learns_why(api: FaultyApi, add: Add) -> None:
    api.faults = [Fault.CUT] * 4

    with pytest.raises(NoAnswer, match="no answer from http"):
        add(api.url, [])

    assert len(api.keys) == 4


def test_nobody_listening_is_no_answer_either(add: Add) -> None:
    with running(FaultyApi()) as gone:
        pass

    with pytest.raises(NoAnswer, match="ConnectError"):
        add(gone.url, [])


def test_an_unusable_address_is_not_tried_again(add: Add) -> None:
    waits: list[float] = []

    with pytest.raises(SettingsError, match="unusable"):
        add("ftp://127.0.0.1", waits)

    assert waits == []


def test_single_submissions_in_a_batching_block_share_requests(api: FaultyApi) -> None:
    async def submit_all() -> int:
        async with AsyncClient(api.url, effort=_EFFORT) as client, client.batching(window_seconds=0.05) as batching:
            handles = await asyncio.gather(*(batching.submit("demo.add", n, n) for n in range(40)))
            return len(handles)

    assert asyncio.run(submit_all()) == 40
    assert api.paths == ["/v1/jobs:batch"]
    assert [item["args"] for item in api.bodies[0]] == [[n, n] for n in range(40)]


def test_a_full_batch_does_not_wait_for_its_window(api: FaultyApi) -> None:
    async def submit_all() -> None:
        async with (
            AsyncClient(api.url, effort=_EFFORT) as client,
            client.batching(window_seconds=3600, batch_size=2) as batching,
        ):
            await asyncio.gather(*(batching.submit("demo.add", n, n) for n in range(4)))

    asyncio.run(submit_all())

    assert [len(body) for body in api.bodies] == [2, 2]


def test_what_a_batch_runs_into_reaches_everyone_in_it(api: FaultyApi) -> None:
    api.faults = [Fault.CUT] * 4

    async def submit_all() -> list[object]:
        async with AsyncClient(api.url, effort=_EFFORT) as client, client.batching(window_seconds=0.05) as batching:
            submissions = [batching.submit("demo.add", n, n) for n in range(3)]
            return list(await asyncio.gather(*submissions, return_exceptions=True))

    assert [type(answer) for answer in asyncio.run(submit_all())] == [NoAnswer] * 3


def test_the_end_of_a_batching_block_sends_what_still_waits(api: FaultyApi) -> None:
    async def submit_one() -> object:
        async with AsyncClient(api.url, effort=_EFFORT) as client:
            async with client.batching(window_seconds=3600) as batching:
                submission = asyncio.create_task(batching.submit("demo.add", 1, 2))
            return await submission

    asyncio.run(submit_one())

    assert api.paths == ["/v1/jobs:batch"]


def test_a_job_that_spoils_its_request_is_the_error_of_its_own_caller_alone(api: FaultyApi) -> None:
    api.poison = "demo.deep"

    async def submit_all() -> list[object]:
        async with (
            AsyncClient(api.url, effort=_EFFORT) as client,
            client.batching(window_seconds=3600, batch_size=4) as batching,
        ):
            submissions = [batching.submit("demo.add", n, n) for n in range(3)]
            bad = batching.send(call("demo.deep"))
            return list(await asyncio.gather(*submissions, bad, return_exceptions=True))

    assert [type(answer) for answer in asyncio.run(submit_all())] == [AsyncJobHandle] * 3 + [Rejected]
