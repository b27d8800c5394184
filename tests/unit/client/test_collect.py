"""Items of many threads become batches, and whatever happens to a batch, everyone in it hears of it."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from threading import Event, Thread

import pytest

from taskplatform.client._collect import Collect
from taskplatform.errors import TaskplatformError
from tests.fixtures.waiting import eventually
from tests.unit.client.scripts import Clock


def _echo(items: list[int]) -> list[int]:
    return items


def test_items_that_come_while_all_flushes_are_under_way_wait_and_travel_together() -> None:
    go_on = Event()
    flushed: list[list[int]] = []

    def flush(items: list[int]) -> list[int]:
        flushed.append(items)
        go_on.wait(5)
        return items

    collect = Collect(flush, window_seconds=0.0, batch_size=100)
    with ThreadPoolExecutor(10) as threads:
        early = []
        for number in range(4):
            early.append(threads.submit(collect.put, number))
            eventually(partial(flushed.__contains__, [number]))
        late = [threads.submit(collect.put, number) for number in range(4, 10)]
        eventually(lambda: collect.waiting == 6)
        go_on.set()
        answers = [one.result(5) for one in (*early, *late)]
    collect.close()

    assert answers == list(range(10))
    assert [len(items) for items in flushed] == [1, 1, 1, 1, 6]


def test_a_window_runs_also_while_all_flushes_are_under_way() -> None:
    clock, go_on = Clock(), Event()
    flushed: list[list[int]] = []

    def flush(items: list[int]) -> list[int]:
        flushed.append(items)
        go_on.wait(30)
        return items

    collect = Collect(flush, window_seconds=3600, batch_size=2, clock=clock)
    with ThreadPoolExecutor(9) as threads, closing(collect):
        early = [threads.submit(collect.put, number) for number in range(8)]
        eventually(lambda: len(flushed) == 4)
        late = threads.submit(collect.put, 8)
        eventually(lambda: collect.waiting == 1)
        clock.now = 3600
        go_on.set()

        assert [one.result(30) for one in (*early, late)] == list(range(9))


@pytest.mark.parametrize("error", [SystemExit, ValueError])
def test_what_a_flush_raises_ends_no_more_than_its_batch(error: type[BaseException]) -> None:
    def flush(items: list[int]) -> list[int]:
        if items[0] < 4:
            raise error
        return items

    with closing(Collect(flush, window_seconds=0.0, batch_size=1)) as collect:
        for number in range(4):
            with pytest.raises(error):
                collect.put(number)

        assert collect.put(4) == 4


def test_a_flush_with_too_few_answers_leaves_nobody_waiting() -> None:
    def flush(items: list[int]) -> list[int]:
        return items[:1]

    collect = Collect(flush, window_seconds=3600, batch_size=2)
    with ThreadPoolExecutor(2) as threads, closing(collect):
        first, second = (threads.submit(collect.put, number) for number in range(2))

        assert sorted(type(one.exception(30)).__name__ for one in (first, second)) == ["NoneType", "ValueError"]


def test_threads_that_cannot_be_started_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = Thread.start, list[Thread]()

    def start_two(thread: Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(Thread, "start", start_two)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        Collect(_echo, window_seconds=0.0, batch_size=1)

    assert [thread.is_alive() for thread in started] == [False, False]


def test_a_fork_is_told_that_the_threads_are_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Collect(_echo, window_seconds=0.0, batch_size=1)) as collect:
        with monkeypatch.context() as fork:
            fork.setattr(os, "getpid", lambda: 0)
            with pytest.raises(TaskplatformError, match="before a fork"):
                collect.put(1)
            collect.close()

        assert collect.put(1) == 1
