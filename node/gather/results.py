"""Computed results in the type and format of the column that PostgreSQL described."""

from __future__ import annotations

import struct

from node.errors import ClientFault, refused
from node.gather import numeric, values
from node.gather.numeric import Numeric
from node.wire.messages import BINARY, Column

Result = int | Numeric | bytes | None  # bytes: already as the client wants them

_NAME_OF_INTEGER = values.INTEGER_NAMES
_FLOAT8 = struct.Struct("!d")
_EXACT_FLOAT = 1 << 53  # beyond it a double cannot hold every integer


def convert(value: Result, column: Column, digits: int | None = None) -> bytes | None:
    """`value` as that column shows it: rounded to `digits` decimals, then cast if the column's type is another.

    Raises 22003, 0A000.
    """
    if value is None or isinstance(value, bytes):
        return value
    if digits is not None:
        value = numeric.rescale(numeric.of_int(value) if isinstance(value, int) else value, digits)
    binary = column.format == BINARY
    oid = column.type_oid
    if oid in values.INTEGERS:
        return values.int_out(oid, _to_int(value, oid), binary)
    if oid == values.NUMERIC:
        number = numeric.of_int(value) if isinstance(value, int) else value
        return values.numeric_out(_limited(number, column.type_modifier), binary)
    if oid in (values.TEXT, values.VARCHAR) and column.type_modifier < 0:
        return b"%d" % value if isinstance(value, int) else numeric.text(value)
    if oid == values.FLOAT8 and isinstance(value, int) and abs(value) < (_EXACT_FLOAT if binary else 10**15):
        return _FLOAT8.pack(float(value)) if binary else b"%d" % value
    raise refused("a cast of an aggregate to this type", detail=f"its type OID is {oid}")


def _to_int(value: int | Numeric, oid: int) -> int:
    if isinstance(value, int):
        return value
    if value.kind:
        what = "NaN" if value.kind == numeric.NOT_A_NUMBER else "infinity"
        raise ClientFault(f"cannot convert {what} to {_NAME_OF_INTEGER[oid]}", sqlstate="0A000")
    return numeric.rescale(value, 0).digits


def _limited(value: Numeric, modifier: int) -> Numeric:
    """numeric(p, s): rounded to s decimals; too many digits before the point are 22003."""
    if modifier < 4:
        return value
    packed = modifier - 4
    precision = packed >> 16 & 0xFFFF
    scale = (packed & 0x7FF ^ 1024) - 1024
    if value.kind == numeric.NOT_A_NUMBER:
        return value
    if value.kind == numeric.INFINITE:
        raise _overflow(precision, scale, "an infinite value")
    if scale < 0:
        raise refused("a cast of an aggregate to numeric with a negative scale")
    rounded = numeric.rescale(value, scale)
    if abs(rounded.digits) >= 10**precision:
        raise _overflow(precision, scale, f"an absolute value less than 10^{precision - scale}")
    return rounded


def _overflow(precision: int, scale: int, what: str) -> ClientFault:
    if what.startswith("an infinite"):
        detail = f"A field with precision {precision}, scale {scale} cannot hold an infinite value."
    elif precision == scale:
        detail = f"A field with precision {precision}, scale {scale} must round to an absolute value less than 1."
    else:
        detail = f"A field with precision {precision}, scale {scale} must round to {what}."
    return ClientFault("numeric field overflow", sqlstate="22003", detail=detail)
