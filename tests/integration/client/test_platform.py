"""The SDK against the real API, worker and dispatcher."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from taskplatform import State
from taskplatform.client import (
    AsyncClient,
    BatchRejected,
    Client,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobTimeout,
    NotFound,
    Rejected,
    Unauthorized,
    call,
    named,
)
from tests.integration.client.tasks import Sum, add, refuse, second_try, wait_for
from tests.native.stack import Stack


def test_a_result_comes_back_in_the_type_that_the_task_promises(client: Client) -> None:
    assert client.submit(add, 1, second=2).result(30) == Sum(total=3, parts=(1, 2))


def test_a_task_is_submitted_by_its_name_alone(client: Client) -> None:
    assert client.submit("demo.add", 1, 2).result(30) == {"total": 3, "parts": [1, 2]}


def test_a_quick_job_needs_one_request(client: Client) -> None:
    handle = client.send(call(add, 1, 2), wait_seconds=20)

    assert handle.result(0) == Sum(total=3, parts=(1, 2))


def test_a_failed_job_raises_with_the_remote_traceback(client: Client) -> None:
    with pytest.raises(JobFailed, match="no such photo") as caught:
        client.submit(refuse, "no such photo").result(30)

    assert caught.value.job.reason == "not_retryable"
    assert "in refuse" in caught.value.remote_traceback


def test_every_attempt_is_on_record(client: Client) -> None:
    handle = client.submit(second_try)

    assert handle.result(30) == 2
    assert [attempt.end for attempt in handle.attempts()] == ["failed", "succeeded"]


def test_a_wait_that_is_over_leaves_the_job_alone(client: Client, tmp_path: Path) -> None:
    there = tmp_path / "there"
    handle = client.submit(wait_for, str(there))

    with pytest.raises(JobTimeout):
        handle.result(0.2)
    there.touch()

    assert handle.result(30) is True


def test_a_cancelled_job_says_so(client: Client) -> None:
    handle = client.submit(add.options(delay_seconds=3600), 1, 2)

    assert handle.cancel().state is State.CANCELLED
    with pytest.raises(JobCancelled):
        handle.result(30)


def test_a_job_that_missed_its_deadline_says_so(client: Client) -> None:
    handle = client.submit(add.options(pool="idle", deadline_seconds=0.2), 1, 2)

    with pytest.raises(JobExpired):
        handle.result(30)


def test_the_same_key_names_the_same_job(client: Client) -> None:
    keyed = add.options(idempotency_key=f"order-{uuid4()}")

    assert client.submit(keyed, 1, 2).id == client.submit(keyed, 1, 2).id
    with pytest.raises(Rejected, match="key"):
        client.submit(keyed, 1, 3)


def test_wrong_arguments_are_pointed_at(client: Client) -> None:
    with pytest.raises(Rejected) as caught:
        client.submit("demo.add", 1, second="x")

    assert caught.value.pointers == ["/kwargs/second"]


def test_a_misspelt_task_brings_the_nearest_name(client: Client) -> None:
    with pytest.raises(Rejected, match=r"did you mean 'demo\.add'"):
        client.submit("demo.ad", 1, 2)


def test_without_a_key_nobody_is_let_in(platform: Stack) -> None:
    with Client(platform.settings.api_url) as stranger, pytest.raises(Unauthorized):
        stranger.submit("demo.add", 1, 2)


def test_a_job_that_does_not_exist_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        client.get(uuid4())


def test_many_jobs_come_back_as_they_complete(client: Client) -> None:
    handles = client.submit_many((call(add, n, n) for n in range(150)), batch_size=40)

    done = {handle.id: handle.result(0).total for handle in client.as_completed(handles, 60)}

    assert [done[handle.id] for handle in handles] == [2 * n for n in range(150)]


def test_two_handles_of_one_job_both_complete(client: Client) -> None:
    keyed = add.options(idempotency_key=f"order-{uuid4()}")
    handles = [client.submit(keyed, 1, 2), client.submit(keyed, 1, 2)]

    assert set(client.as_completed(handles, 30)) == set(handles)


def test_a_batch_names_what_was_refused_and_keeps_the_rest(client: Client) -> None:
    with pytest.raises(BatchRejected) as caught:
        client.submit_many([call("demo.add", 1, 2), call("demo.add", 1), call("demo.add", 3, 4)])

    assert list(caught.value.problems) == [1]
    assert caught.value.accepted[2].result(30) == {"total": 7, "parts": [3, 4]}


def test_a_batch_handed_in_twice_makes_each_job_once(client: Client) -> None:
    calls = [call(add, n, n) for n in range(3)]

    first, second = client.submit_many(calls), client.submit_many(calls)

    assert [handle.id for handle in first] == [handle.id for handle in second]


def test_a_list_is_read_page_by_page(client: Client) -> None:
    tag = f"list-{uuid4().hex[:8]}"
    handles = client.submit_many(call(add.options(tags=(tag,), delay_seconds=3600), n, n) for n in range(5))
    since = datetime.now(UTC) - timedelta(hours=1)

    listed = list(client.jobs(tag=tag, state=[State.SCHEDULED, State.QUEUED], created_after=since, page_size=2))

    assert [job.id for job in listed] == sorted((handle.id for handle in handles), reverse=True)


def test_a_dead_job_is_found_among_the_dead_letters_and_replayed(client: Client) -> None:
    handle = client.submit(refuse, "still no photo")
    assert handle.wait(30).state is State.DEAD

    letter = next(each for each in client.dead_letters(task="demo.refuse", replayed=False) if each.job_id == handle.id)
    assert client.dead_letter(letter.id).reason == "not_retryable"

    assert client.replay(letter.id).id == handle.id
    assert client.wait(handle.id, 30).attempt == 2
    with pytest.raises(Rejected, match="replayed"):
        client.replay(letter.id)


def test_the_announced_tasks_can_be_read(client: Client) -> None:
    found = {each.name: each for each in client.tasks()}

    assert found["demo.add"].positional == ("first", "second")


def test_an_event_loop_has_the_same_calls(platform: Stack) -> None:
    async def run() -> tuple[list[Sum], int, str]:
        async with AsyncClient(platform.settings.api_url, key=platform.key) as client:
            async with client.batching() as batching:
                handles = await asyncio.gather(*(batching.submit(add, n, n) for n in range(30)))
            results = [await handle async for handle in client.as_completed(handles, 60)]
            many = await client.submit_many([call(add, 1, 1), call(add, 2, 2)])
            listed = [job async for job in client.jobs(task="demo.add", page_size=10)]
            cancelled = await (await client.submit(named("demo.add", delay_seconds=3600), 1, 2)).cancel()
            assert {handle.id for handle in many} <= {job.id for job in listed}
            return results, len(listed), cancelled.state

    results, listed, state = asyncio.run(run())

    assert sorted(result.total for result in results) == [2 * n for n in range(30)]
    assert listed >= 32
    assert state == State.CANCELLED


def test_a_job_over_the_limit_of_a_request_harms_no_other_thread_of_its_batch(client: Client) -> None:
    with ThreadPoolExecutor(3) as threads, client.batching(window_seconds=3600, batch_size=3) as batching:
        sums = [threads.submit(batching.submit, add, n, n) for n in range(2)]
        bad = threads.submit(batching.submit, "demo.add", "x" * 6_000_000, 1)
        error = bad.exception(30)
        handles = [one.result(30) for one in sums]

    assert isinstance(error, Rejected)
    assert error.code == "body_too_large"
    assert [handle.result(30).total for handle in handles] == [0, 2]
