"""Why a message died is read out of whatever headers it has."""

import pytest

from taskplatform.broker.dead import first_death


def test_the_first_death_wins_over_the_latest() -> None:
    deaths = [{"reason": "expired", "queue": "second"}, {"reason": "rejected", "queue": "first"}]

    assert first_death({"x-death": deaths}) == ("rejected", "first")


def test_the_headers_of_the_first_death_win_over_the_list() -> None:
    headers = {
        "x-first-death-reason": "delivery_limit",
        "x-first-death-queue": "here",
        "x-death": [{"reason": "expired", "queue": "there"}],
    }

    assert first_death(headers) == ("delivery_limit", "here")


@pytest.mark.parametrize("deaths", [None, [], "text", [1], [[]], {"reason": "rejected"}])
def test_headers_that_make_no_sense_say_nothing(deaths: object) -> None:
    assert first_death({"x-death": deaths}) == (None, None)
