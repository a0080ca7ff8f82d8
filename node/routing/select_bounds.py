"""LIMIT and OFFSET: from the tree to a number, with PostgreSQL's own rules and errors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Final

from node.errors import ClientFault, refused
from node.routing.lexed import STRING, Lexed
from node.routing.operands import Literal, ordinal_of
from node.routing.outcome import Values
from node.routing.select_trees import Tree, ast

BIGINT_MAX = (1 << 63) - 1
_INT_SIZES = {21: 2, 23: 4, 20: 8}
_INT_TYPES = frozenset(("int2", "int4", "int8", "smallint", "integer", "bigint", "int"))
_NUMERIC_DIGITS: Final = 131072  # before the decimal point of a numeric
_DECIMAL: Final = re.compile(r"[0-9]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Bound:
    """A constant, the client's parameter (index from 0), or a literal of its text. All None: no bound."""

    constant: int | None = None
    parameter: int | None = None
    literal: Literal | None = None


def bound(node: Tree | None, what: str, *, is_marked: bool = False) -> Bound:
    """`what` is LIMIT or OFFSET. Raises 0A000 for expressions other than constants and parameters.

    `is_marked`: the tree has markers for literals (operands.py). One under a cast is refused, too: whether it fits
    its type is a question for a tree with the value.
    """
    cast = False
    while isinstance(node, ast.TypeCast) and node.typeName.names[-1].sval in _INT_TYPES and _castable(node.arg):
        node, cast = node.arg, True
    if node is None:
        return Bound()
    if isinstance(node, ast.ParamRef) and node.number > 0:
        return Bound(parameter=node.number - 1)
    if isinstance(node, ast.A_Const):
        if node.isnull:
            return Bound()
        value = node.val
        found = ordinal_of(value) if is_marked else None
        if found is not None:
            if cast:
                raise refused(f"a cast in {what}")
            return Bound(literal=Literal(*found))
        if isinstance(value, ast.Integer):
            return Bound(value.ival)
        if isinstance(value, ast.Float):
            return Bound(_rounded(value.fval))
        if isinstance(value, ast.String):
            return Bound(_int8_in(value.sval))
        raise ClientFault(f"argument of {what} must be type bigint, not another type", sqlstate="42804")
    raise refused(f"an expression in {what}", hint=f"give {what} as a constant or a parameter")


def unusual_number(lexed: Lexed, ordinal: int) -> str | None:
    """The number as written, if it is one that PostgreSQL reads since 16 only: 0x1F, 0o17, 0b11, 1_000."""
    if lexed.literal_kind(ordinal) == STRING:
        return None
    text = lexed.literal_text(ordinal).decode()
    return None if _DECIMAL.fullmatch(text) else text


def _rounded(text: str) -> int:
    """A number as written, as a bigint. Compared before it is an integer: 1e999999999 would have as many digits."""
    plain = text.replace("_", "")
    try:
        # 0x, 0o and 0b are integers, with or without a sign
        number = Decimal(int(plain, 0) if plain.lstrip("-")[1:2].lower() in ("x", "o", "b") else plain)
    except InvalidOperation:
        number = Decimal("Infinity")
    if not number.is_finite() or number.adjusted() >= _NUMERIC_DIGITS:
        raise ClientFault("value overflows numeric format", sqlstate="22003")
    if -BIGINT_MAX - 2 < number < BIGINT_MAX + 1:
        found = int(number.to_integral_value(ROUND_HALF_UP))
        if -BIGINT_MAX - 1 <= found <= BIGINT_MAX:
            return found
    raise ClientFault("bigint out of range", sqlstate="22003")


def _literal(lexed: Lexed, literal: Literal, what: str) -> int:
    """What `bound` finds for the same text."""
    if lexed.literal_kind(literal.ordinal) == STRING:
        try:
            return _int8_in(lexed.literal_value(literal.ordinal).decode("utf-8", "replace"))
        except ValueError:
            raise refused(f"such a string in {what}") from None
    text = lexed.literal_text(literal.ordinal).decode()
    return _rounded("-" + text if literal.negative else text)


def _castable(node: Tree) -> bool:
    # A cast of a fractional constant rounds to another width first; integers and parameters pass unchanged.
    return isinstance(node, (ast.ParamRef, ast.TypeCast)) or (
        isinstance(node, ast.A_Const) and not isinstance(node.val, ast.Float)
    )


def resolve(limit: Bound, offset: Bound, values: Values) -> tuple[int | None, int]:
    """The numbers to apply. Parameters that are not bound yet count as absent (Parse and Describe only).

    Raises 2201W and 2201X for negative values, 22P02, 22P03 and 0A000 for parameters that are no bigint.
    """
    skip = _value(offset, values, "OFFSET")
    if skip is not None and skip < 0:
        raise ClientFault("OFFSET must not be negative", sqlstate="2201X")
    count = _value(limit, values, "LIMIT")
    if count is not None and count < 0:
        raise ClientFault("LIMIT must not be negative", sqlstate="2201W")
    return count, skip or 0


def _value(given: Bound, values: Values, what: str) -> int | None:
    if given.literal is not None and values.lexed is not None:
        return _literal(values.lexed, given.literal, what)
    if given.parameter is None or values.parameters is None:
        return given.constant
    index = given.parameter
    if index >= len(values.parameters):
        raise ClientFault(f"there is no parameter ${index + 1}", sqlstate="42P02")
    raw = values.parameters[index]
    if raw is None:
        return None
    declared = values.types[index] if index < len(values.types) else 0
    if declared and declared not in _INT_SIZES:
        raise refused(f"a parameter of another type than bigint in {what}")
    formats = values.formats
    code = 0 if not formats else formats[0] if len(formats) == 1 else formats[index]
    if code == 0:
        return _int8_in(raw.decode("utf-8", "replace"))
    if len(raw) != _INT_SIZES[declared] if declared else len(raw) not in (2, 4, 8):
        raise ClientFault(f"incorrect binary data format in bind parameter {index + 1}", sqlstate="22P03")
    return int.from_bytes(raw, "big", signed=True)


def _int8_in(text: str) -> int:
    """bigint's input function. Other spellings than decimal (0x, 0o, 0b, underscores) are refused: PostgreSQL reads
    them since 16, and nobody here knows how old the servers are."""
    body = text.strip(" \t\n\r\f\v")
    try:
        if not body.isascii():
            raise ValueError
        sign, digits = ("-", body[1:]) if body[:1] == "-" else ("", body.removeprefix("+"))
        if not digits or not digits[0].isalnum():
            raise ValueError
        prefixed = digits[:2].lower() in ("0x", "0o", "0b")
        number = int(sign + digits, 0) if prefixed else int(sign + digits)
        if prefixed or "_" in digits:
            raise refused(f'LIMIT or OFFSET written as "{text}"', hint="write it as a decimal number")
    except (ValueError, InvalidOperation):
        raise ClientFault(f'invalid input syntax for type bigint: "{text}"', sqlstate="22P02") from None
    if not -BIGINT_MAX - 1 <= number <= BIGINT_MAX:
        raise ClientFault(f'value "{text}" is out of range for type bigint', sqlstate="22003")
    return number
