"""What a process takes the messages in a queue for."""

from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.freight import HALF_LIFE_SECONDS, Freight

LIMIT = 20_000


class Clock:
    """Shows what it is set to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_message_stands_for_one_job_where_nothing_is_known() -> None:
    freight = Freight()
    freight.note("other", messages=1, jobs=100)

    assert freight.jobs_in("q", 7) == 7


def test_messages_stand_for_as_many_jobs_as_those_that_were_sent() -> None:
    freight = Freight(clock=Clock())
    freight.note("q", messages=9, jobs=9)
    freight.note("q", messages=1, jobs=91)

    assert (freight.jobs_in("q", 3), freight.jobs_in("q", 0)) == (30, 0)


@pytest.mark.parametrize(("half_lives", "jobs"), [(0, 900), (1, 500), (2, 300), (20, 101), (5000, 100)])
def test_what_is_known_fades_while_messages_leave(half_lives: int, jobs: int) -> None:
    clock = Clock()
    freight = Freight(clock=clock)
    freight.note("q", messages=10, jobs=90)
    freight.jobs_in("q", 101)
    clock.now = half_lives * HALF_LIFE_SECONDS

    assert freight.jobs_in("q", 100) == jobs


def test_nothing_fades_while_no_message_leaves() -> None:
    clock = Clock()
    freight = Freight(clock=clock)
    freight.note("q", messages=10, jobs=90)
    freight.jobs_in("q", 100)
    clock.now = 8 * 3600.0

    assert freight.jobs_in("q", 100) == 900


def test_what_was_sent_later_counts_for_more() -> None:
    clock = Clock()
    freight = Freight(clock=clock)
    freight.note("q", messages=4, jobs=40)
    freight.jobs_in("q", 100)
    clock.now = 2 * HALF_LIFE_SECONDS
    freight.note("q", messages=1, jobs=1)

    assert freight.jobs_in("q", 100) == 550


def test_what_has_left_for_certain_counts_no_more() -> None:
    freight = Freight(clock=Clock())
    freight.note("q", messages=1000, jobs=100_000)
    full = freight.jobs_in("q", 1000)
    freight.jobs_in("q", 0)
    freight.note("q", messages=1000, jobs=1000)

    assert (full, freight.jobs_in("q", 1000)) == (100_000, 1000)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 100)), min_size=1, max_size=10))
def test_a_queue_that_nobody_empties_gets_one_sending_too_many_at_most(sendings: list[tuple[int, int]]) -> None:
    clock = Clock()
    freight = Freight(clock=clock)
    depth = jobs = 0
    for messages, each in islice(cycle(sendings), 8 * 60):
        if freight.jobs_in("q", depth) < LIMIT:
            freight.note("q", messages=messages, jobs=messages * each)
            depth, jobs = depth + messages, jobs + messages * each
        clock.now += 60

    assert jobs < LIMIT + max(messages * each for messages, each in sendings)


@given(st.integers(1, 1000), st.integers(0, 20))
def test_a_queue_is_not_called_full_for_long_after_a_burst(bundles: int, singles: int) -> None:
    clock = Clock()
    freight = Freight(clock=clock)
    freight.note("q", messages=bundles, jobs=bundles * 100)
    freight.jobs_in("q", bundles)
    # Others keep the queue from ever being empty.
    depths = [300, 299]
    for depth in islice(cycle(depths), 6 * int(HALF_LIFE_SECONDS)):
        clock.now += 1
        if singles:
            freight.note("q", messages=singles, jobs=singles)
        freight.jobs_in("q", depth)

    assert freight.jobs_in("q", 300) < LIMIT


sendings = st.tuples(st.floats(0, 1e6), st.integers(1, 1000), st.integers(1, 100))


@given(st.lists(sendings), st.floats(0, 1e6), st.integers(0, 10_000))
def test_messages_stand_for_at_least_a_job_and_at_most_a_full_bundle(
    sent: list[tuple[float, int, int]], later: float, messages: int
) -> None:
    clock = Clock()
    freight = Freight(clock=clock)
    for seconds, count, each in sent:
        clock.now += seconds
        freight.note("q", messages=count, jobs=count * each)
    clock.now += later

    most = max((each for _, _, each in sent), default=1)
    assert messages <= freight.jobs_in("q", messages) <= messages * most + 1
