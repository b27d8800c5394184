"""What a process takes the messages in a queue for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.freight import HALF_LIFE_SECONDS, Freight


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
def test_what_is_known_fades(half_lives: int, jobs: int) -> None:
    clock = Clock()
    freight = Freight(clock=clock)
    freight.note("q", messages=10, jobs=90)
    clock.now = half_lives * HALF_LIFE_SECONDS

    assert freight.jobs_in("q", 100) == jobs


def test_what_was_sent_later_counts_for_more() -> None:
    clock = Clock()
    freight = Freight(clock=clock)
    freight.note("q", messages=4, jobs=40)
    clock.now = 2 * HALF_LIFE_SECONDS
    freight.note("q", messages=1, jobs=1)

    assert freight.jobs_in("q", 100) == 550


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
