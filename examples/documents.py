"""Job pack: term counts, readability and an inverted index of the language reference that comes with Python."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pydoc_data.topics import topics
from typing import Annotated
from zlib import crc32

from msgspec import Meta

from examples.outputs import write_whole
from taskplatform import Fail, Retry, task

Name = Annotated[str, Meta(min_length=1, max_length=1000)]
Share = Annotated[int, Meta(ge=1, le=1024)]

PATIENT = Retry(max_attempts=4, backoff_seconds=0.5, max_backoff_seconds=30.0)
LONG_WORD = 7

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?:]+(?=\s|$)|\n\s*\n")


@task(name="documents.terms", retry=PATIENT, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def terms(title: Name, top: Share = 10) -> dict[str, object]:
    """Count the words of a document and rate how hard it is to read; `top` bounds the list of frequent words."""
    text = text_of(title)
    words = tokens(text)
    counts = Counter(words)
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
    return {
        "title": title,
        "words": len(words),
        "distinct": len(counts),
        "sentences": sentences(text),
        "readability": round(readability(text), 2),
        "frequent": dict(frequent),
    }


@task(name="documents.index_shard", retry=PATIENT, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def index_shard(shard: Annotated[int, Meta(ge=0, le=1023)], shards: Share, output: Name) -> dict[str, object]:
    """Write one of `shards` parts of the inverted index (word → document → count) as JSON into the folder `output`."""
    if shard >= shards:
        raise Fail(f"there is no shard {shard} of {shards}")
    held = {title: text_of(title) for title in in_shard(titles(), shard, shards)}
    index = inverted(held)
    content = json.dumps(index, ensure_ascii=False, sort_keys=True, indent=1).encode()
    name = f"index-{shard:04}-of-{shards:04}.json"
    return {"documents": len(held), "words": len(index), **write_whole(output, name, content)}


def titles() -> list[str]:
    """List the documents that come with this Python, in order."""
    return sorted(topics)


def text_of(title: str) -> str:
    """Give the text of a document. Raises Fail when this Python has none of that title."""
    if title not in topics:
        raise Fail(f"this Python ships no document {title!r}")
    return topics[title]


def tokens(text: str) -> list[str]:
    """Split a text into words of letters, in the form that compares without case."""
    return [word.casefold() for word in _WORD.findall(text)]


def sentences(text: str) -> int:
    """Count the pieces with a word in them between full stops, other end marks, colons and empty lines."""
    return sum(1 for piece in _SENTENCE_END.split(text) if _WORD.search(piece))


def readability(text: str) -> float:
    """Give the LIX of a text (C.-H. Björnsson, 1968): words a sentence plus the percentage of words over 6 letters.

    It needs no word list and no syllables, so that it holds for many languages. An empty text has 0.
    """
    words = tokens(text)
    if not words:
        return 0.0
    long_words = sum(len(word) >= LONG_WORD for word in words)
    return len(words) / sentences(text) + 100 * long_words / len(words)


def in_shard(names: Sequence[str], shard: int, shards: int) -> list[str]:
    """Give the names whose checksum falls into one of `shards` equal parts: each name falls into exactly one."""
    return [name for name in names if crc32(name.encode()) % shards == shard]


def inverted(documents: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Turn documents into word → document → count."""
    index: dict[str, dict[str, int]] = {}
    for title, text in documents.items():
        for word, count in Counter(tokens(text)).items():
            index.setdefault(word, {})[title] = count
    return index
