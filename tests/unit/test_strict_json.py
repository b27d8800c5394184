"""The strict reading of JSON agrees with Python's json module, and refuses what two readers could read differently."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform import strict_json
from taskplatform.errors import InvalidInput

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(strict_json.LOWEST_INTEGER, strict_json.HIGHEST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)
WRITERS = st.sampled_from(
    [
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode(),
        msgspec.json.encode,
    ]
)
FRAGMENTS = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"a"',
            '"b"',
            '"\\u0061"',
            '"\\ud800"',
            '"\\u0000"',
            '"é"',
            "1",
            "-0",
            "1.5",
            "1e999",
            "1e5",
            "9223372036854775807",
            "9223372036854775808",
            "NaN",
            "true",
            "null",
            '"\\"',
            "\\",
        ]
    ),
    max_size=12,
).map("".join)


def refused(text: bytes) -> str | None:
    try:
        strict_json.check(text)
    except InvalidInput as error:
        return error.code
    return None


@given(value=VALUES, write=WRITERS)
def test_good_json_passes_and_is_plain_or_checked(value: Any, write: Any) -> None:
    assert refused(write(value)) is None


@given(value=VALUES, write=WRITERS)
def test_plain_json_says_everything_once(value: Any, write: Any) -> None:
    text = write(value)

    understood = msgspec.json.decode(text)

    assert not strict_json.is_plain(text) or strict_json.repeats_no_key(text, msgspec.json.encode(understood))


@given(FRAGMENTS)
def test_what_the_quick_look_takes_the_full_check_takes_too(fragments: str) -> None:
    text = f"[{fragments}]".encode()
    try:
        understood = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return

    quick = strict_json.is_plain(text) and strict_json.repeats_no_key(text, msgspec.json.encode(understood))

    assert not quick or refused(text) is None


@given(FRAGMENTS)
def test_what_json_does_not_take_is_refused(fragments: str) -> None:
    try:
        json.loads(fragments)
    except json.JSONDecodeError:
        assert refused(fragments.encode()) is not None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"[" * 33 + b"]" * 33, "too_deep"),
        (b"[" * 5000, "too_deep"),
        (b"[" + b"0," * 9_999 + b"0]", "too_many_values"),
        (json.dumps({str(n): n for n in range(1001)}).encode(), "too_many_keys"),
        (json.dumps("é" * 32_769, ensure_ascii=False).encode(), "string_too_long"),
        (json.dumps({"é" * 129: 1}, ensure_ascii=False).encode(), "key_too_long"),
        (b'{"a":[{"b":1,"b":2}]}', "duplicate_key"),
        (b"[1,2", "malformed_json"),
    ],
)
def test_a_rule_that_is_broken_is_named(text: bytes, code: str) -> None:
    assert refused(text) == code
    assert not strict_json.is_plain(text) or code in {"duplicate_key", "malformed_json"}


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 32 + b"]" * 32,
        b"[" + b"0," * 9_998 + b"0]",
        json.dumps({str(n): n for n in range(1000)}).encode(),
        json.dumps("x" * 65_536).encode(),
        json.dumps({"x" * 256: 1}).encode(),
        b"[9223372036854775807,-9223372036854775808,1e308]",
        b'["\\ud83d\\ude00"]',
    ],
)
def test_the_limits_themselves_are_within(text: bytes) -> None:
    assert refused(text) is None


def test_a_broken_rule_is_pointed_at() -> None:
    with pytest.raises(InvalidInput) as caught:
        strict_json.check(b'{"a/b":[0,{"~":1e999}]}')

    assert caught.value.pointer == "/a~1b/1/~0"
