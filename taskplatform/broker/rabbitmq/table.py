"""AMQP field tables and content properties as bytes, with the letters that RabbitMQ's "AMQP 0-9-1 Errata" names."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

DEEPEST = 32
"""Tables inside tables that are read or written; a message nested deeper is not one that anybody means."""

_U32 = struct.Struct(">I").pack
_LETTER_AND_U32 = struct.Struct(">cI").pack
_INT32 = struct.Struct(">ci").pack
_INT64 = struct.Struct(">cq").pack
_DOUBLE = struct.Struct(">cd").pack

# Properties in the order of their flags, the highest bit first (AMQP 0-9-1, section 4.2.6.1 and class basic).
_PROPERTIES: Final = (
    ("content_type", "short"),
    ("content_encoding", "short"),
    ("headers", "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "short"),
    ("reply_to", "short"),
    ("expiration", "short"),
    ("message_id", "short"),
    ("timestamp", "time"),
    ("type", "short"),
    ("user_id", "short"),
    ("app_id", "short"),
    ("cluster_id", "short"),
)

_NUMBERS: Final = MappingProxyType(
    {
        letter: struct.Struct(form)
        for letter, form in {
            b"b": ">b", b"B": ">B", b"s": ">h", b"u": ">H", b"U": ">h", b"I": ">i", b"i": ">I",
            b"l": ">q", b"L": ">q", b"f": ">f", b"d": ">d",
        }.items()
    }
)  # fmt: skip


@lru_cache(maxsize=1024)
def short_string(text: str) -> bytes:
    """Write a short string. Raises ValueError above 255 bytes."""
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"{text[:40]!r}… is longer than 255 bytes")
    return bytes((len(data),)) + data


def long_string(data: bytes) -> bytes:
    """Write a long string."""
    return _U32(len(data)) + data


def encode_table(table: Mapping[str, Any], depth: int = 0) -> bytes:
    """Write a table of str, int, bool, None, float, list and dict.

    Raises ValueError for another type, for a number that 64 bits do not hold, and for nesting beyond DEEPEST.
    """
    _check(depth)
    return long_string(encode_entries(table.items(), depth))


def encode_entries(entries: Iterable[tuple[str, Any]], depth: int = 0) -> bytes:
    """Write the entries of a table without the size before them. Raises as `encode_table` does."""
    parts: list[bytes] = []
    add = parts.append
    for name, value in entries:
        kind = type(value)
        if kind is str and len(value) > _REPEATED_LENGTH:
            data = value.encode()
            add(short_string(name))
            add(_LETTER_AND_U32(b"S", len(data)))
            add(data)
        elif kind in _REPEATED:
            add(_entry(name, value))
        else:
            add(short_string(name) + _field(value, depth))
    return b"".join(parts)


# Most entries are the same in message after message; longer texts are rather ids and signatures.
_REPEATED: Final = frozenset({str, int, bool, float, type(None)})
_REPEATED_LENGTH: Final = 24


@lru_cache(maxsize=1024, typed=True)
def _entry(name: str, value: float | str | None) -> bytes:
    return short_string(name) + _field(value, 0)


def _field(value: object, depth: int) -> bytes:
    match value:
        case None:
            return b"V"
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            return _integer(value)
        case str():
            return b"S" + long_string(value.encode())
        case float():
            return _DOUBLE(b"d", value)
        case list() | tuple():
            _check(depth + 1)
            return b"A" + long_string(b"".join([_field(item, depth + 1) for item in value]))
        case Mapping():
            return b"F" + encode_table(value, depth + 1)
    raise ValueError(f"a {type(value).__name__} has no place in a header")


def _check(depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST} levels")


def _integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return _INT32(b"I", value)
    if -(2**63) <= value < 2**63:
        return _INT64(b"l", value)
    raise ValueError(f"{value} does not fit into 64 bits")


class Reader:
    """Reads one payload from front to back. All raise ValueError when the bytes end early or make no sense."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self._position = position

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self._position < len(self._data)

    def take(self, size: int) -> bytes:
        """Read `size` bytes."""
        end = self._position + size
        if end > len(self._data):
            raise ValueError("the bytes end early")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def number(self, size: int) -> int:
        """Read an unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def flag(self) -> bool:
        """Read a truth value."""
        return self.number(1) != 0

    def nothing(self) -> None:
        """Read a value that takes no bytes."""

    def short_string(self) -> str:
        """Read a short string; bytes that are no UTF-8 are shown escaped."""
        return self.take(self.number(1)).decode(errors="backslashreplace")

    def long_string(self) -> str:
        """Read a long string; bytes that are no UTF-8 are shown escaped."""
        return self.take(self.number(4)).decode(errors="backslashreplace")

    def time(self) -> str:
        """Read a time as ISO 8601 in UTC, or as its number where no calendar reaches."""
        seconds = self.number(8)
        try:
            return datetime.fromtimestamp(seconds, UTC).isoformat()
        except (OverflowError, OSError, ValueError):
            return str(seconds)

    def decimal(self) -> float:
        """Read a decimal number, rounded."""
        scale = self.number(1)
        return float(int.from_bytes(self.take(4), "big", signed=True) / 10**scale)

    def table(self, depth: int = 0) -> dict[str, Any]:
        """Read a table as plain JSON values; ValueError also for nesting beyond DEEPEST."""
        _check(depth)
        inside = Reader(self.take(self.number(4)))
        table: dict[str, Any] = {}
        while inside.more:
            name = inside.short_string()
            table[name] = inside.field(depth)
        return table

    def array(self, depth: int = 0) -> list[Any]:
        """Read a list; ValueError also for nesting beyond DEEPEST."""
        _check(depth)
        inside = Reader(self.take(self.number(4)))
        items = []
        while inside.more:
            items.append(inside.field(depth))
        return items

    def field(self, depth: int = 0) -> Any:
        """Read one value behind its letter."""
        letter = self.take(1)
        if number := _NUMBERS.get(letter):
            return number.unpack(self.take(number.size))[0]
        if plain := _PLAIN.get(letter):
            return plain(self)
        if nested := _NESTED.get(letter):
            return nested(self, depth + 1)
        raise ValueError(f"unknown field type {letter!r}")


_PLAIN: Final = MappingProxyType[bytes, Callable[[Reader], Any]](
    {
        b"S": Reader.long_string,
        b"x": Reader.long_string,
        b"t": Reader.flag,
        b"V": Reader.nothing,
        b"T": Reader.time,
        b"D": Reader.decimal,
    }
)
_NESTED: Final = MappingProxyType[bytes, Callable[[Reader, int], Any]]({b"F": Reader.table, b"A": Reader.array})


def read_properties(header: bytes) -> dict[str, Any]:
    """Read the properties of a content header's payload; its headers are under `headers`. Raises ValueError."""
    reader = Reader(header, position=12)
    flags = reader.number(2)
    properties: dict[str, Any] = {}
    for index, (name, kind) in enumerate(_PROPERTIES):
        if not flags & (1 << (15 - index)):
            continue
        match kind:
            case "short":
                properties[name] = reader.short_string()
            case "octet":
                properties[name] = reader.number(1)
            case "time":
                properties[name] = reader.time()
            case _:
                properties[name] = reader.table()
    return properties
