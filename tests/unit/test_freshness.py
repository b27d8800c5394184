"""Tokens of what was seen: read strictly, joined without losing anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform import freshness
from taskplatform.errors import InvalidInput
from taskplatform.freshness import LATEST, START, Position, Watermark

POSITIONS = st.builds(Position, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
SEEN = st.dictionaries(st.integers(0, 255), POSITIONS, min_size=1, max_size=5)


@given(SEEN)
def test_a_token_gives_back_what_it_was_made_of(seen: dict[int, Position]) -> None:
    assert freshness.read(freshness.write(seen)) == seen


@given(SEEN, SEEN)
def test_what_is_joined_includes_both(one: dict[int, Position], other: dict[int, Position]) -> None:
    joined = freshness.joined(one, other)

    assert all(joined[cluster].includes(at) for seen in (one, other) for cluster, at in seen.items())
    assert joined == freshness.joined(other, one)


@given(POSITIONS)
def test_every_position_includes_the_start_and_none_the_latest(position: Position) -> None:
    assert position.includes(START)
    assert not position.includes(LATEST)


def test_a_place_in_another_timeline_is_included_only_with_its_timeline() -> None:
    assert not Position(1, 900).includes(Position(2, 100))
    assert not Position(2, 50).includes(Position(1, 100))
    assert Position(2, 100).includes(Position(1, 100))


@given(st.lists(POSITIONS, min_size=1))
def test_a_watermark_never_goes_back(noted: list[Position]) -> None:
    watermark = Watermark()

    for position in noted:
        watermark.note(position)

    assert all(watermark.position.includes(position) for position in noted)


@pytest.mark.parametrize(
    "text", ["", "0", "0=1", "0=1-", "0=1-XY", "0=-1-A", "a=1-A", "0=1-A,", "0=1-A;1=1-A", "9" * 9000]
)
def test_no_other_text_is_a_token(text: str) -> None:
    with pytest.raises(InvalidInput):
        freshness.read(text)
