"""How many messages a worker asks for, where each may bring many jobs."""

import pytest

from workers.shares import Shares


@pytest.mark.parametrize(("wanted", "messages"), [(0, 8), (8, 8), (9, 32), (512, 512), (10**6, 65_535)])
def test_of_single_jobs_there_are_as_many_messages_as_jobs_are_wanted(wanted: int, messages: int) -> None:
    for held in (0, wanted // 2, wanted, 2 * wanted):
        assert Shares(1).prefetch(wanted, held, held) == messages


@pytest.mark.parametrize(("wanted", "messages"), [(0, 2), (150, 2), (512, 8), (10_000, 128)])
def test_where_jobs_may_come_in_bundles_the_first_messages_are_taken_for_full_ones(wanted: int, messages: int) -> None:
    assert Shares(100).prefetch(wanted, 0, 0) == messages


def test_larger_deliveries_count_at_once_and_smaller_ones_by_and_by() -> None:
    shares = Shares(1)
    shares.received(100)

    assert shares.prefetch(512, 500, 5) == 8
    seen: list[int] = []
    for _ in range(40):
        shares.received(1)
        seen.append(shares.prefetch(512, 0, 0))

    assert seen[0] == 8
    assert seen == sorted(seen)
    assert seen[-1] == 512


def test_without_news_nothing_changes() -> None:
    shares = Shares(100)

    assert [shares.prefetch(512, 0, 0) for _ in range(50)] == [8] * 50


def test_slow_jobs_that_come_singly_keep_no_others_out() -> None:
    shares = Shares(100)
    messages = 2

    for _ in range(12):
        # Whatever is let in is one slow job, but for a bundle of quick ones that is over by the next look.
        shares.received(100)
        singles = messages - 1
        messages = shares.prefetch(232, singles, singles)

    assert messages >= 200


def test_what_is_here_beyond_what_is_wanted_lets_no_more_in() -> None:
    shares = Shares(100)

    assert shares.prefetch(512, 51_200, 512) == 8
    assert shares.prefetch(200, 200, 150) == 256
