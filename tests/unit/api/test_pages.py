"""Page tokens and the Prefer header: small grammars, read strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.exchange import wait_seconds
from api.letters import LetterQuery
from api.pages import Pages, page_size
from taskplatform.errors import InvalidInput
from taskplatform.shards import MOST_CLUSTERS, first_row

PAGES = Pages(b"secret")


@given(last=st.text(st.characters(exclude_categories=["Cs"])), filters=st.lists(st.none() | st.text()))
def test_a_token_gives_back_what_it_was_made_of(last: str, filters: list[str | None]) -> None:
    assert PAGES.read(PAGES.token(last, filters), filters) == last


@given(st.text(max_size=80))
def test_no_other_text_is_a_token(text: str) -> None:
    with pytest.raises(InvalidInput, match="page token"):
        PAGES.read(text, [])


def test_a_token_for_the_largest_numbers_of_as_many_clusters_as_there_may_be_is_taken_back() -> None:
    last = ",".join(str(first_row(cluster + 1) - 2) for cluster in range(MOST_CLUSTERS))

    token = PAGES.token(last, [])

    assert LetterQuery.model_validate({"page_token": token}).page_token == token


def test_a_token_of_another_secret_is_refused() -> None:
    with pytest.raises(InvalidInput):
        PAGES.read(Pages(b"other").token("1", []), [])


@pytest.mark.parametrize(("wanted", "size"), [(None, 50), (-1, 1), (0, 1), (7, 7), (10**12, 1000)])
def test_a_page_has_a_size_within_bounds(wanted: int | None, size: int) -> None:
    assert page_size(wanted) == size


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        (b"", 0),
        (b"respond-async", 0),
        (b"wait=5", 5),
        (b"respond-async, wait=5", 5),
        (b"respond-async;wait=5", 5),
        (b'wait="7"', 7),
        (b"wait = 3", 3),
        (b"wait=99999", 30),
        (b"wait=-1", 0),
        (b"wait=1x", 0),
        (b"await=9", 0),
        (b"wait=99999999999999999999", 0),
    ],
)
def test_a_wish_to_wait_is_read(prefer: bytes | None, seconds: int) -> None:
    assert wait_seconds(prefer, 30.0) == seconds
