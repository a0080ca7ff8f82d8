"""Values on the wire, text and binary. The binary numerics were read from a PostgreSQL 18 (numeric_send)."""

from __future__ import annotations

from decimal import Decimal

import pytest

from node.admin.answers import Type, Value, encode


@pytest.mark.parametrize(
    ("value", "type_", "text"),
    [
        (True, Type.BOOL, b"t"),
        (False, Type.BOOL, b"f"),
        (7, Type.BIGINT, b"7"),
        (0.5, Type.NUMERIC, b"0.500"),
        (Decimal("1E+3"), Type.NUMERIC, b"1000"),
        ("é", Type.TEXT, "é".encode()),
        ("a\0b", Type.TEXT, "a\ufffdb".encode()),
        (None, Type.TEXT, None),
    ],
)
def test_text_is_what_postgresql_prints(value: Value, type_: Type, text: bytes | None) -> None:
    assert encode(value, type_, 0) == text


@pytest.mark.parametrize(
    ("value", "type_", "binary"),
    [
        (True, Type.BOOL, "01"),
        ("f", Type.BOOL, "00"),
        (-2, Type.BIGINT, "fffffffffffffffe"),
        ("12", Type.BIGINT, "000000000000000c"),
        ("x", Type.TEXT, "78"),
        (0, Type.NUMERIC, "0000000000000000"),
        (1, Type.NUMERIC, "00010000000000000001"),
        (10000, Type.NUMERIC, "00010001000000000001"),
        (Decimal("-12345.678"), Type.NUMERIC, "0003000140000003000109291a7c"),
        (0.005, Type.NUMERIC, "0001ffff000000030032"),
        (0.0, Type.NUMERIC, "0000000000000003"),
        (Decimal("NaN"), Type.NUMERIC, "00000000c0000000"),
        (None, Type.NUMERIC, None),
    ],
)
def test_binary_is_what_the_send_functions_write(value: Value, type_: Type, binary: str | None) -> None:
    encoded = encode(value, type_, 1)
    assert (None if encoded is None else encoded.hex()) == binary


def test_a_number_is_the_same_as_decimal_float_or_text() -> None:
    assert encode(Decimal("1.500"), Type.NUMERIC, 1) == encode(1.5, Type.NUMERIC, 1) == encode("1.500", Type.NUMERIC, 1)
