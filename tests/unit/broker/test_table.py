"""Field tables mean to py-amqp what they mean to us."""

from contextlib import suppress
from typing import Any

import pytest
from amqp.serialization import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.broker.rabbitmq.table import DEEPEST, Reader, encode_table, read_properties

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=60)
)
_names = st.text(max_size=60)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4), max_leaves=12
)
_tables = st.dictionaries(_names, _values, max_size=8)


@given(_tables)
def test_py_amqp_reads_what_we_write(table: dict[str, Any]) -> None:
    values, _ = loads("F", encode_table(table), 0)

    assert _typed(values[0]) == _typed(table)


@given(_tables)
def test_we_read_what_we_write(table: dict[str, Any]) -> None:
    assert _typed(Reader(encode_table(table)).table()) == _typed(table)


@given(_tables)
def test_we_read_what_py_amqp_writes(table: dict[str, Any]) -> None:
    assert Reader(dumps("F", (table,))).table() == table


def test_a_number_that_equals_another_type_keeps_its_own() -> None:
    ours = [Reader(encode_table({"same": value})).table()["same"] for value in (1, True, 1.0, 0, False, 0.0)]

    assert [type(value) for value in ours] == [int, bool, float, int, bool, float]


@pytest.mark.parametrize("value", [object(), b"bytes", 2**63, -(2**63) - 1, {"x" * 256: 1}, "\ud800"])
def test_what_a_header_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  Each value is refused in words of its own.
        encode_table({"header": value})


def test_nesting_without_end_is_refused_in_writing() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(ValueError, match="nested"):
        encode_table({"endless": endless})


def test_nesting_without_end_is_refused_in_reading() -> None:
    table = b""
    for _ in range(DEEPEST + 2):
        table = len(table).to_bytes(4, "big") + table
        table = b"\x00F" + table

    with pytest.raises(ValueError, match="nested"):
        Reader(len(table).to_bytes(4, "big") + table).table()


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        Reader(data).table()
    with suppress(ValueError):
        read_properties(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"f\x3f\x00\x00\x00", 0.5),
        (b"D\x02\x00\x00\x00\x7d", 1.25),
        (b"x\x00\x00\x00\x01a", "a"),
        (b"S\x00\x00\x00\x01\xff", "\\xff"),
        (b"T\x00\x00\x00\x00\x00\x00\x00\x00", "1970-01-01T00:00:00+00:00"),
        (b"T\xff\xff\xff\xff\xff\xff\xff\xff", str(2**64 - 1)),
    ],
)
def test_values_that_other_programs_write_are_read(field: bytes, value: object) -> None:
    assert Reader(field).field() == value


def _typed(value: object) -> object:
    match value:
        case dict():
            return {name: _typed(inner) for name, inner in value.items()}
        case list():
            return [_typed(inner) for inner in value]
    return type(value), value
