"""How many messages a worker asks for, where each may bring many jobs."""

from random import Random

import pytest

from workers.shares import Shares, worth_changing


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


def after_singles(most: int) -> Shares:
    """Give the shares of a worker that was told of nothing but single jobs for long."""
    shares = Shares(most)
    for _ in range(50):
        for _ in range(100):
            shares.received(1)
        shares.prefetch(512, 0, 0)
    return shares


def test_a_few_bundles_count_at_once_however_many_single_jobs_came_before_them() -> None:
    shares = after_singles(1)
    for jobs in [1] * 1000 + [100] * 4:
        shares.received(jobs)

    assert shares.prefetch(512, 0, 0) == 8


def test_one_bundle_is_forgotten_among_single_jobs() -> None:
    shares = after_singles(1)
    for jobs in [100] + [1] * 30:
        shares.received(jobs)
    shares.prefetch(512, 0, 0)
    for jobs in [1] * 30:
        shares.received(jobs)

    assert shares.prefetch(512, 0, 0) >= 256


@pytest.mark.parametrize(("most", "messages"), [(1, 512), (16, 128), (100, 128)])
def test_where_bundles_may_come_single_jobs_open_no_slot_for_each(most: int, messages: int) -> None:
    assert after_singles(most).prefetch(512, 0, 0) == messages


def test_without_news_nothing_changes() -> None:
    shares = Shares(100)

    assert [shares.prefetch(512, 0, 0) for _ in range(50)] == [8] * 50


def test_many_slow_jobs_that_come_singly_are_soon_here_where_bundles_may_come() -> None:
    shares = Shares(100)
    here = looks = 0

    while here < 2000:
        messages = shares.prefetch(2000, here, here)
        assert messages > here
        for _ in range(messages - here):
            shares.received(1)
        here, looks = messages, looks + 1

    assert looks <= 25
    assert here < 2 * 2000


@pytest.mark.parametrize("seed", range(5))
def test_a_mixture_of_slow_jobs_and_bundles_fills_the_worker_and_makes_no_hoard(seed: int) -> None:
    random = Random(seed)
    shares = Shares(100)
    wanted, messages, slow, most = 232, 2, 0, 0

    for _ in range(300):
        # Whatever is let in is a slow job or a bundle of quick ones, which are over by the next look.
        arrived = [random.choice((1, 100)) for _ in range(messages - slow)]
        for jobs in arrived:
            shares.received(jobs)
        most = max(most, slow + sum(arrived))
        slow += arrived.count(1)
        messages = max(messages, shares.prefetch(wanted, slow, slow))

    assert slow >= 0.9 * wanted
    assert most < 3 * wanted


def test_beside_what_is_here_only_so_many_are_let_in_as_are_missing() -> None:
    assert 150 < Shares(100).prefetch(232, 150, 150) < 170
    assert Shares(100).prefetch(8, 1, 2) == 3


def test_what_is_here_beyond_what_is_wanted_lets_no_more_in() -> None:
    assert Shares(100).prefetch(512, 51_200, 512) == 8
    assert Shares(100).prefetch(200, 200, 150) == 150


@pytest.mark.parametrize(
    ("prefetch", "wish", "deliveries", "worth"),
    [
        (100, 100, 0, False),
        (100, 120, 99, False),
        (100, 126, 0, True),
        (100, 80, 0, False),
        (100, 74, 0, True),
        (150, 151, 150, True),
        (150, 151, 149, False),
        (2, 3, 2, True),
        (8, 7, 8, False),
        (512, 256, 400, True),
    ],
)
def test_a_prefetch_is_not_changed_for_a_little_unless_it_lets_nothing_in(
    prefetch: int, wish: int, deliveries: int, worth: bool
) -> None:
    assert worth_changing(prefetch, wish, deliveries) is worth
