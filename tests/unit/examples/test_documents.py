"""The document pack: words, sentences, readability and shards of the index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.documents import in_shard, index_shard, inverted, readability, sentences, terms, titles, tokens
from taskplatform import Fail


def test_words_are_letters_without_case_and_keep_their_apostrophe() -> None:
    assert tokens("Don't PANIC: Über 42 x_y") == ["don't", "panic", "über", "x", "y"]


def test_sentences_end_at_marks_and_at_empty_lines() -> None:
    assert sentences("One. Two! Three?\n\nA heading\n\nLast, at 3.14 p") == 5


def test_marks_without_words_are_no_sentences() -> None:
    assert sentences("... !!! \n\n 42.") == 0


def test_readability_is_words_a_sentence_plus_percent_of_long_words() -> None:
    assert readability("The elephant eats. It sleeps.") == 5 / 2 + 100 * 1 / 5


def test_an_empty_text_has_readability_zero() -> None:
    assert readability("") == 0.0


def test_an_inverted_index_counts_each_word_in_each_document() -> None:
    assert inverted({"a": "red red blue", "b": "blue"}) == {"red": {"a": 2}, "blue": {"a": 1, "b": 1}}


@pytest.mark.parametrize("shards", [1, 2, 7, 64])
def test_each_document_falls_into_exactly_one_shard(shards: int) -> None:
    dealt = [title for shard in range(shards) for title in in_shard(titles(), shard, shards)]

    assert sorted(dealt) == titles()


def test_a_shard_of_the_index_is_the_same_file_when_made_twice(tmp_path: Path) -> None:
    first = index_shard(0, 8, str(tmp_path))

    second = index_shard(0, 8, str(tmp_path))

    assert first == second
    assert len(json.loads(Path(str(first["file"])).read_bytes())) == first["words"]


def test_a_shard_beyond_the_last_is_hopeless(tmp_path: Path) -> None:
    with pytest.raises(Fail, match="there is no shard 8 of 8"):
        index_shard(8, 8, str(tmp_path))


@pytest.mark.parametrize("title", titles())
def test_each_document_of_this_python_has_words_and_a_readability(title: str) -> None:
    facts = terms(title)

    assert isinstance(facts["words"], int)
    assert facts["words"] > 0
    assert isinstance(facts["readability"], float)
    assert facts["readability"] > 0


def test_frequent_words_come_most_frequent_first_and_are_bounded() -> None:
    frequent = terms("for", top=3)["frequent"]

    assert isinstance(frequent, dict)
    counts = list(frequent.values())
    assert len(counts) == 3
    assert counts == sorted(counts, reverse=True)


def test_a_document_that_python_does_not_ship_is_hopeless() -> None:
    with pytest.raises(Fail, match="ships no document 'cobol'"):
        terms("cobol")
