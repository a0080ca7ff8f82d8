"""What a command answers: fields and values, and how values look on the wire in text and in binary.

Four types are enough for the whole console. Binary is what their `send` functions write (PostgreSQL sources of the
backend: int8send, boolsend, textsend, numeric_send), because a client that asks for binary in Bind must get binary.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import NamedTuple

from node.errors import Fault
from node.wire import messages

Value = str | int | float | Decimal | bool | None
Row = Sequence[Value]

_INT8 = struct.Struct("!q")
_NUMERIC = struct.Struct("!HhHH")
_DIGIT = struct.Struct("!H")
_NAN = 0xC000
_NEGATIVE = 0x4000


class Type(Enum):
    """`oid` and `size` of pg_type."""

    BOOL = (16, 1)
    BIGINT = (20, 8)
    TEXT = (25, -1)
    NUMERIC = (1700, -1)

    def __init__(self, oid: int, size: int) -> None:
        self.oid = oid
        self.size = size


class Field(NamedTuple):
    """A column as a client sees it."""

    name: str
    type: Type

    def described(self, code: int = messages.TEXT) -> messages.Column:
        return messages.Column(self.name.encode(), self.type.oid, type_size=self.type.size, format=code)


@dataclass(frozen=True, slots=True)
class Notice:
    text: str
    detail: str | None = None
    hint: str | None = None


@dataclass(slots=True)
class Answer:
    """`fields` is None for a command without rows. A `fault` ends the answer in an ERROR after the notices."""

    tag: str
    fields: tuple[Field, ...] | None = None
    rows: Sequence[Row] = ()
    notices: list[Notice] = field(default_factory=list)
    fault: Fault | None = None


def text_of(value: Value) -> str | None:
    """As PostgreSQL prints it; a float has three decimals, as PgDog's times have."""
    match value:
        case None:
            return None
        case bool():
            return "t" if value else "f"
        case float():
            return f"{value:.3f}"
        case Decimal():
            return f"{value:f}"
    # a zero byte cannot be in a text; nothing we show should have one, and a name from gossip must not break a client
    return str(value).replace("\0", "\ufffd")


def encode(value: Value, type_: Type, code: int) -> bytes | None:
    """One field of a DataRow."""
    text = text_of(value)
    if text is None:
        return None
    if code == messages.TEXT or type_ is Type.TEXT:
        return text.encode("utf-8", "replace")
    if type_ is Type.BOOL:
        return b"\1" if text == "t" else b"\0"
    if type_ is Type.BIGINT:
        return _INT8.pack(int(text))
    return numeric(Decimal(text))


def numeric(value: Decimal) -> bytes:
    """numeric_send: digits in base 10000, the weight of the first, sign and display scale."""
    if not value.is_finite():
        return _NUMERIC.pack(0, 0, _NAN, 0)
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    scale = max(0, -exponent)
    text = "".join(map(str, digits)) + "0" * max(0, exponent)
    whole, fraction = (text[:-scale], text[-scale:].rjust(scale, "0")) if scale else (text, "")
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[at : at + 4]) for at in range(0, len(whole) + len(fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    if not groups:
        return _NUMERIC.pack(0, 0, 0, scale)
    head = _NUMERIC.pack(len(groups), weight, _NEGATIVE if sign else 0, scale)
    return head + b"".join(_DIGIT.pack(group) for group in groups)
