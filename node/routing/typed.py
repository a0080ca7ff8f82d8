"""The value of an operand, with as much of its type as matters for comparing it with a key.

Literals and parameters are read exactly as PostgreSQL reads them, or not at all: `None` means "could be anything".
What PostgreSQL would certainly reject is a ClientFault with PostgreSQL's SQLSTATE and words.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

from node.errors import ClientFault
from node.routing.lexed import INTEGER, NUMERIC
from node.routing.operands import Arithmetic, ArrayOf, Cast, Constant, Literal, Operand, Parameter
from node.routing.outcome import Values

INT_TYPES: Final = {"int2": 2, "int4": 4, "int8": 8}
TEXT_TYPES: Final = frozenset(("text", "varchar"))
OIDS: Final = {
    20: "int8", 21: "int2", 23: "int4", 26: "oid", 25: "text", 1043: "varchar", 1042: "bpchar", 19: "name",
    705: "unknown", 2950: "uuid", 700: "float4", 701: "float8", 1700: "numeric", 16: "bool",
    1016: "int8[]", 1005: "int2[]", 1007: "int4[]", 1009: "text[]", 1015: "varchar[]", 1014: "bpchar[]",
    2951: "uuid[]",
}  # fmt: skip
TYPE_NAMES: Final = {"int8": "bigint", "int4": "integer", "int2": "smallint"}
_UUID: Final = re.compile(rb"[0-9a-fA-F]{4}(?:-?[0-9a-fA-F]{4}){7}\Z")
_DECIMAL_INT: Final = re.compile(rb"[+-]?[0-9]+(?:_[0-9]+)*\Z")
_OTHER_INT: Final = re.compile(rb"([+-]?)0(?:[xX](?:_?[0-9a-fA-F]+)+|[oO](?:_?[0-7]+)+|[bB](?:_?[01]+)+)\Z")
_SPACE: Final = b" \t\n\r\f\v"
NUMERIC_DIGITS_MAX: Final = 1000  # longer numbers are not worth evaluating


class Typed(NamedTuple):
    """`kind`: int, numeric, float, text, unknown (a string whose type the context decides), bpchar (without its blanks:
    `varchar = bpchar` compares without them, so its value is no key), uuid, null, array."""

    kind: str
    value: int | Decimal | bytes | tuple[Typed | None, ...] | None = None
    type: str = ""  # of an array's elements, if declared


NULL: Final = Typed("null")


def evaluate(operand: Operand, values: Values, target: str) -> Typed | None:
    """None: not known. `target`: the type a parameter without declared type takes from its context."""
    match operand:
        case Literal():
            return _literal(operand, values)
        case Parameter():
            return _parameter(operand.number, values, target)
        case Constant():
            return _constant(operand)
        case Cast():
            inner = operand.operand
            kept = evaluate(inner, values, operand.type if isinstance(inner, Parameter) else "unknown")
            return None if kept is None else cast(kept, operand.type)
        case Arithmetic():
            return _arithmetic(operand, values, target)
        case ArrayOf():
            return Typed("array", tuple(evaluate(element, values, target) for element in operand.elements))


def _literal(operand: Literal, values: Values) -> Typed | None:
    lexed = values.lexed
    if lexed is None or operand.ordinal >= len(lexed.marks) // 3:
        return None
    kind = lexed.literal_kind(operand.ordinal)
    try:
        value = lexed.literal_value(operand.ordinal)
    except ValueError:
        return None  # a bad escape: PostgreSQL will say so
    if kind == INTEGER:
        number = _number(value)
        return Typed("int", -number if operand.negative else number) if number is not None else None
    if kind == NUMERIC:
        return _decimal(value, operand.negative)
    return Typed("unknown", value)


def _constant(operand: Constant) -> Typed | None:
    match operand.kind:
        case "null":
            return NULL
        case "integer":
            return Typed("int", operand.value)
        case "numeric" if isinstance(operand.value, bytes):
            number = _number(operand.value)
            return Typed("int", number) if number is not None else _decimal(operand.value, False)
        case "string" if isinstance(operand.value, bytes):
            return Typed("unknown", operand.value)
    return None


def _number(text: bytes) -> int | None:
    """An integer as the scanner and int8in read it (16.0 and later): signs, underscores, 0x 0o 0b."""
    if len(text) > NUMERIC_DIGITS_MAX:
        return None
    if _DECIMAL_INT.match(text):
        return int(text)
    other = _OTHER_INT.match(text)
    if other is None:
        return None
    bare = text[len(other[1]) :].replace(b"_", b"")
    number = int(bare[2:], {120: 16, 111: 8, 98: 2}[bare[1] | 32])
    return -number if other[1] == b"-" else number


def _decimal(text: bytes, negative: bool) -> Typed | None:
    try:
        number = Decimal(text.replace(b"_", b"").decode())
    except (InvalidOperation, UnicodeDecodeError):
        return None
    if not number.is_finite() or abs(number.adjusted()) > NUMERIC_DIGITS_MAX:
        return None
    return Typed("numeric", -number if negative else number)


def _parameter(number: int, values: Values, target: str) -> Typed | None:
    parameters = values.parameters
    if parameters is None:
        return None
    if number > len(parameters):
        return None  # PostgreSQL reports the missing parameter
    raw = parameters[number - 1]
    if raw is None:
        return NULL
    declared = values.types[number - 1] if number <= len(values.types) else 0
    if not declared and number in values.loose:
        return None
    name = OIDS.get(declared) if declared else target
    if name is None:
        return None
    formats = values.formats
    binary = bool(formats) and formats[number - 1 if len(formats) > 1 else 0] == 1
    if name.endswith("[]"):
        return _array(raw, name[:-2], binary)
    return binary_value(raw, name, number) if binary else text_value(raw, name)


def text_value(raw: bytes, name: str) -> Typed | None:
    """The text form of a value of a type. ClientFault 22P02, 22003 as PostgreSQL."""
    if name in INT_TYPES:
        number = _number(raw.strip(_SPACE))
        if number is None:
            raise _invalid(raw, TYPE_NAMES[name])
        return Typed("int", in_range(number, name, raw))
    if name in TEXT_TYPES:
        return Typed("text", raw)
    if name == "bpchar":
        return Typed("bpchar", raw.rstrip(b" "))
    if name == "unknown":
        return Typed("unknown", raw)
    if name == "uuid":
        return Typed("uuid", read_uuid(raw))
    if name == "numeric":
        number = _number(raw.strip(_SPACE))
        return Typed("numeric", Decimal(number)) if number is not None else _decimal(raw.strip(_SPACE), False)
    return None


def binary_value(raw: bytes, name: str, number: int) -> Typed | None:
    """The binary form. ClientFault 22P03 for a size that the type cannot have."""
    if name in INT_TYPES:
        # With an undeclared type the width tells which integer the column is.
        if len(raw) not in (2, 4, 8):
            raise ClientFault(f"incorrect binary data format in bind parameter {number}", sqlstate="22P03")
        return Typed("int", int.from_bytes(raw, "big", signed=True))
    if name in TEXT_TYPES:
        return Typed("text", raw)
    if name == "bpchar":
        return Typed("bpchar", raw.rstrip(b" "))
    if name == "unknown":
        return Typed("unknown", raw)
    if name == "uuid":
        if len(raw) != 16:
            raise ClientFault(f"incorrect binary data format in bind parameter {number}", sqlstate="22P03")
        return Typed("uuid", raw)
    return None


def in_range(number: int, name: str, raw: bytes | None = None) -> int:
    bits = INT_TYPES[name] * 8 - 1
    if -(1 << bits) <= number < 1 << bits:
        return number
    shown = raw.decode("utf-8", "replace") if raw is not None else str(number)
    if raw is None:
        raise ClientFault(f"{TYPE_NAMES[name]} out of range", sqlstate="22003")
    raise ClientFault(f'value "{shown}" is out of range for type {TYPE_NAMES[name]}', sqlstate="22003")


def read_uuid(raw: bytes) -> bytes:
    """Hyphens after any group of four digits, braces around all, as uuid_in."""
    text = raw[1 : len(raw) - 1] if raw[:1] == b"{" and raw[len(raw) - 1 :] == b"}" else raw
    if not _UUID.match(text):
        raise _invalid(raw, "uuid")
    return bytes.fromhex(text.replace(b"-", b"").decode())


def _invalid(raw: bytes, name: str) -> ClientFault:
    shown = raw.decode("utf-8", "replace")
    return ClientFault(f'invalid input syntax for type {name}: "{shown}"', sqlstate="22P02")


def cast(kept: Typed, name: str) -> Typed | None:
    """An explicit cast. Only what is exact and understood; anything else is not known."""
    if kept.kind == "null":
        return NULL
    if name.endswith("[]"):
        if kept.kind == "unknown" and isinstance(kept.value, bytes):
            return _array(kept.value, name[:-2], False)
        if kept.kind != "array" or not isinstance(kept.value, tuple):
            return None
        elements = tuple(None if element is None else cast(element, name[:-2]) for element in kept.value)
        return Typed("array", elements, name[:-2])
    value = kept.value
    if name in INT_TYPES:
        if kept.kind == "unknown" or kept.kind == "text":
            return text_value(value, name) if isinstance(value, bytes) else None
        if kept.kind == "numeric" and isinstance(value, Decimal) and value == value.to_integral_value():
            value = int(value)
        return Typed("int", in_range(value, name)) if isinstance(value, int) else None
    if name in TEXT_TYPES:
        if kept.kind in ("unknown", "text", "bpchar"):
            return Typed("text", value)
        return Typed("text", str(value).encode()) if kept.kind == "int" else None
    if name == "bpchar":
        return Typed("bpchar", value.rstrip(b" ")) if isinstance(value, bytes) and kept.kind != "uuid" else None
    if name == "uuid":
        if kept.kind in ("unknown", "text") and isinstance(value, bytes):
            return Typed("uuid", read_uuid(value))
        return kept if kept.kind == "uuid" else None
    if name == "numeric":
        if kept.kind == "unknown" and isinstance(value, bytes):
            return text_value(value, "numeric")
        if isinstance(value, int):
            return Typed("numeric", Decimal(value))
        return kept if kept.kind == "numeric" else None
    if name in ("float8", "float4") and isinstance(value, (int, Decimal)) and -(2**24) < value < 2**24:
        whole = int(value)
        return Typed("float", Decimal(whole)) if Decimal(value) == whole else None
    return None


def _arithmetic(operand: Arithmetic, values: Values, target: str) -> Typed | None:
    # A parameter takes the type of what is beside it.
    left, right = (
        None if isinstance(side, Parameter) else evaluate(side, values, target)
        for side in (operand.left, operand.right)
    )
    if left is None and right is not None and right.kind == "int":
        left = evaluate(operand.left, values, target)
    elif right is None and left is not None and left.kind == "int":
        right = evaluate(operand.right, values, target)
    if left is None or right is None:
        return None
    if left.kind == "null" or right.kind == "null":
        return NULL
    a, b = left.value, right.value
    if left.kind != "int" or right.kind != "int" or not isinstance(a, int) or not isinstance(b, int):
        return None
    result = a + b if operand.operator == "+" else a - b if operand.operator == "-" else a * b
    # int4 arithmetic may overflow where int8 would not; the types are not tracked, so only small results are trusted.
    return Typed("int", result) if abs(result) < 2**31 else None


def _array(raw: bytes, element: str, binary: bool) -> Typed | None:
    if binary:
        return _binary_array(raw, element)
    items = split_array(raw)
    if items is None:
        return None
    found = tuple(NULL if item is None else text_value(item, element) for item in items)
    return Typed("array", found, element)


def split_array(raw: bytes) -> list[bytes | None] | None:
    """The elements of a one-dimensional array in text form; None for anything fancier."""
    text = raw.strip(_SPACE)
    if text[:1] != b"{" or text[len(text) - 1 :] != b"}":
        return None
    items: list[bytes | None] = []
    i, end = 1, len(text) - 1
    if not text[1:end].strip(_SPACE):
        return items
    while True:
        while i < end and text[i] in _SPACE:
            i += 1
        if i < end and text[i] == 34:
            piece = bytearray()
            i += 1
            while i < end and text[i] != 34:
                if text[i] == 92:
                    i += 1
                piece.append(text[i])
                i += 1
            i += 1
            items.append(bytes(piece))
            while i < end and text[i] in _SPACE:
                i += 1
        else:
            stop = text.find(b",", i, end)
            stop = end if stop < 0 else stop
            word = text[i:stop].strip(_SPACE)
            if not word or any(c in b'{}"\\' for c in word):
                return None
            items.append(None if word.upper() == b"NULL" else word)
            i = stop
        if i >= end:
            return items if i == end else None
        if text[i] != 44:
            return None
        i += 1


def _binary_array(raw: bytes, element: str) -> Typed | None:
    if len(raw) < 12:
        return None
    dimensions = int.from_bytes(raw[0:4], "big")
    if dimensions == 0:
        return Typed("array", (), element)
    if dimensions != 1 or len(raw) < 20:
        return None
    count = int.from_bytes(raw[12:16], "big")
    at = 20
    found: list[Typed | None] = []
    for _ in range(min(count, len(raw) // 4)):
        size = int.from_bytes(raw[at : at + 4], "big", signed=True)
        at += 4
        if size < 0:
            found.append(NULL)
            continue
        if at + size > len(raw):
            return None
        found.append(binary_value(raw[at : at + size], element, 1))
        at += size
    return Typed("array", tuple(found), element) if at == len(raw) else None
