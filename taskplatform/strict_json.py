"""Refuses JSON that two readers could read differently, that Postgres cannot keep, or that is too big to carry."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any, NoReturn

import msgspec

from taskplatform.errors import InvalidInput

MAX_DEPTH = 32
MAX_NODES = 10_000
MAX_KEYS = 1_000
MAX_STRING_BYTES = 65_536
MAX_KEY_BYTES = 256
LOWEST_INTEGER = -(2**63)
HIGHEST_INTEGER = 2**63 - 1

MALFORMED = "malformed_json"


class NotFinite(ValueError):
    """NaN and infinity have no JSON form."""


def encode(value: Any) -> bytes:
    """Write a value as JSON. Raises TypeError or ValueError for one that has no JSON form, for infinity NotFinite."""
    encoded = msgspec.json.encode(value)
    # msgspec writes them as null, silently.
    if b"null" in encoded and not _is_finite(msgspec.to_builtins(value)):
        raise NotFinite("it holds NaN or infinity")
    return encoded


def _is_finite(value: Any) -> bool:
    match value:
        case float():
            return isfinite(value)
        case dict():
            return all(map(_is_finite, value.values()))
        case list() | tuple():
            return all(map(_is_finite, value))
        case _:
            return True


def utf8(body: bytes) -> str:
    """Decode a body. Raises InvalidInput for anything but UTF-8, and for a byte order mark."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the body is not UTF-8 (byte {error.start})", code=MALFORMED) from None
    if text.startswith("\ufeff"):
        raise InvalidInput("the body starts with a byte order mark (byte 0)", code=MALFORMED)
    return text


def is_plain(text: bytes) -> bool:
    """Tell cheaply that well-formed JSON in UTF-8 breaks no rule of `check` but two that others find.

    `repeats_no_key` finds a repeated key, decoding finds a float that is out of range. False only means that `check`
    has to look.
    """
    size = len(text)
    if b"\\u" in text or b'\\"' in text or _LONG_INTEGER in text.translate(_DIGITS):
        return False
    if size > 2 * MAX_DEPTH and text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        return False
    if size > MAX_KEY_BYTES and _LONG_KEY.search(text) is not None:
        return False
    if size > 4 * MAX_KEYS and (size > MAX_STRING_BYTES or text.count(b":") > MAX_KEYS):
        return False
    return size <= MAX_NODES or text.count(b",") + text.count(b"[") + text.count(b"{") < MAX_NODES


def repeats_no_key(text: bytes, encoded: bytes) -> bool:
    """Tell whether plain JSON says everything once: `encoded` is what was understood of it, written again.

    A key that repeats is understood once, so its colon is missing; no escape can hide or make a colon in plain JSON.
    """
    return text.count(b":") == encoded.count(b":")


def check(text: bytes) -> None:
    """Check JSON in full, at some cost.

    Raises InvalidInput with `code` and, where there is one, `pointer` for: malformed JSON, nesting deeper than
    MAX_DEPTH, too many values or keys, strings and keys that are too long, repeated keys, integers beyond 64 bits,
    floats and words that are no JSON number, NUL, and surrogates without their other half.
    """
    plain = utf8(text)
    try:
        tree = _READER.decode(plain)
    except json.JSONDecodeError as error:
        position = len(plain[: error.pos].encode())
        raise InvalidInput(f"malformed JSON: {error.msg.lower()} (byte {position})", code=MALFORMED) from None
    except RecursionError:
        raise _too_deep() from None
    _Walk().over(tree)


def pointer(*path: str | int) -> str:
    """Write a path into JSON as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def decode_error(error: msgspec.DecodeError, text: bytes) -> InvalidInput:
    """Say what is wrong with a body that msgspec did not take; `text` is what it was given."""
    if isinstance(error, msgspec.ValidationError):
        detail, _, where = str(error).partition(" - at `$")
        found = [part or index for part, index in _PATH.findall(where.removesuffix("`"))]
        code = "number_out_of_range" if detail.startswith("Number out of range") else "invalid_input"
        return InvalidInput(detail[:200], code=code, pointer=pointer(*found))
    try:
        check(text)
    except InvalidInput as found_by_check:
        return found_by_check
    return InvalidInput("malformed JSON", code=MALFORMED)


class _Object(list[tuple[str, Any]]):
    """An object's members as they were sent."""


class _Integer(str):
    __slots__ = ()


class _Float(str):
    __slots__ = ()


class _Walk:
    def __init__(self) -> None:
        self.nodes = 0
        self.keys = 0

    def over(self, tree: Any) -> None:
        waiting: list[tuple[Any, tuple[str | int, ...]]] = [(tree, ())]
        while waiting:
            value, path = waiting.pop()
            self.nodes += 1
            if self.nodes > MAX_NODES:
                raise InvalidInput(f"more than {MAX_NODES} values", code="too_many_values")
            if isinstance(value, list):
                if len(path) >= MAX_DEPTH:
                    raise _too_deep()
                waiting.extend(self._members(value, path))
            elif isinstance(value, str):
                _check_scalar(value, path)

    def _members(self, value: list[Any], path: tuple[str | int, ...]) -> list[tuple[Any, tuple[str | int, ...]]]:
        if not isinstance(value, _Object):
            return [(item, (*path, index)) for index, item in enumerate(value)]
        self.keys += len(value)
        if self.keys > MAX_KEYS:
            raise InvalidInput(f"more than {MAX_KEYS} keys", code="too_many_keys")
        seen: set[str] = set()
        for key, _ in value:
            _check_text(key, path, most=MAX_KEY_BYTES, what="key")
            if key in seen:
                raise InvalidInput("a key is repeated", code="duplicate_key", pointer=pointer(*path, key))
            seen.add(key)
        return [(item, (*path, key)) for key, item in value]


def _check_scalar(value: str, path: tuple[str | int, ...]) -> None:
    if isinstance(value, _Integer):
        if len(value) > 20 or not LOWEST_INTEGER <= int(value) <= HIGHEST_INTEGER:
            raise _out_of_range("an integer beyond 64 bits", path)
    elif isinstance(value, _Float):
        if float(value) in (float("inf"), float("-inf")):
            raise _out_of_range("a number beyond the range of a double", path)
    else:
        _check_text(value, path, most=MAX_STRING_BYTES, what="string")


def _check_text(text: str, path: tuple[str | int, ...], *, most: int, what: str) -> None:
    if "\0" in text:
        raise InvalidInput(f"a {what} holds U+0000", code="invalid_text", pointer=pointer(*path))
    if _SURROGATE.search(text) is not None:
        raise InvalidInput(f"a {what} holds half a surrogate pair", code="invalid_text", pointer=pointer(*path))
    if len(text) > most or (len(text) * 4 > most and len(text.encode()) > most):
        raise InvalidInput(f"a {what} is longer than {most} bytes", code=f"{what}_too_long", pointer=pointer(*path))


def _out_of_range(detail: str, path: tuple[str | int, ...]) -> InvalidInput:
    return InvalidInput(detail, code="number_out_of_range", pointer=pointer(*path))


def _too_deep() -> InvalidInput:
    return InvalidInput(f"nested deeper than {MAX_DEPTH}", code="too_deep")


def _no_number(word: str) -> NoReturn:
    raise InvalidInput(f"{word} is no JSON number", code="number_out_of_range")


_READER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=_Integer, parse_float=_Float, parse_constant=_no_number)
_DIGITS = bytes(48 if chr(byte).isdigit() and byte < 128 else 32 for byte in range(256))
_LONG_INTEGER = b"0" * 19
_LONG_KEY = re.compile(rb'"[^"]{%d,}+"\s*:' % (MAX_KEY_BYTES + 1))
_SURROGATE = re.compile("[\ud800-\udfff]")
_PATH = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
