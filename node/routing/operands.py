"""What a key is compared with, before its value is known, and the marked text that lets the parser tell us.

The parser drops the positions of constants. So before parsing, each literal that the shape does not contain is
replaced by a marker of its kind: a number or string that names the literal's ordinal and occurs nowhere else. A
constant in the tree that carries a marker is a `Literal`; any other is a `Constant` that is part of the shape.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from pglast import ast, enums

from node.routing.lexed import NUMERIC, STRING, Lexed

NUMBER_BASE: Final = 1_900_000_000  # a marker number is NUMBER_BASE + ordinal, still an int4
STRING_BASE: Final = "\x02pgmurmur:"
LITERALS_MAX: Final = 100_000  # beyond this a text is parsed as it is and cached by its full text


@dataclass(frozen=True, slots=True)
class Literal:
    """A literal of the text, by its ordinal in the statement."""

    ordinal: int
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is part of the shape: int, decimal text as `numeric`, bytes as `string`, bool, None as NULL."""

    kind: str
    value: int | bytes | bool | None


@dataclass(frozen=True, slots=True)
class Parameter:
    number: int


@dataclass(frozen=True, slots=True)
class Cast:
    operand: Operand
    type: str  # PostgreSQL's internal name: int8, text, uuid ...


@dataclass(frozen=True, slots=True)
class Arithmetic:
    operator: str  # + - *
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class ArrayOf:
    elements: tuple[Operand, ...]


Operand = Literal | Constant | Parameter | Cast | Arithmetic | ArrayOf

NULL: Final = Constant("null", None)


def marked(lexed: Lexed, pinned: Collection[int] = ()) -> str | None:
    """The text with markers for literals, but for those `pinned`; None if it cannot be marked without ambiguity or is
    not UTF-8."""
    marks = lexed.marks
    if len(marks) > 3 * LITERALS_MAX or b"pgmurmur:" in lexed.shape or b"190000" in lexed.shape:
        return None
    parts = []
    at = 0
    for ordinal, k in enumerate(range(0, len(marks), 3)):
        kind, start, end = marks[k], marks[k + 1], marks[k + 2]
        if ordinal in pinned:
            continue
        parts.append(lexed.sql[at:start])
        if kind == STRING:
            parts.append(b"'%s%d'" % (STRING_BASE.encode(), ordinal))
        else:
            parts.append(b"%d" % (NUMBER_BASE + ordinal))
            if kind == NUMERIC:
                parts.append(b".5")
        at = end
    parts.append(lexed.sql[at:])
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        return None


def ordinal_of(value: Any) -> tuple[int, bool] | None:
    """(ordinal, negative) if this constant of the tree is a marker."""
    match value:
        case ast.Integer():
            number = value.ival or 0
            if abs(number) >= NUMBER_BASE:
                return abs(number) - NUMBER_BASE, number < 0
        case ast.Float():
            text = value.fval or ""
            bare = text.lstrip("-")
            if bare.endswith(".5") and bare[:-2].isdigit() and int(bare[:-2]) >= NUMBER_BASE and len(bare) == 12:
                return int(bare[:-2]) - NUMBER_BASE, text.startswith("-")
        case ast.String() if (value.sval or "").startswith(STRING_BASE):
            return int((value.sval or "")[len(STRING_BASE) :]), False
    return None


def operand_of(node: Any, is_marked: bool) -> Operand | None:
    """The operand that an expression without columns, functions and subqueries stands for; None for any other."""
    match node:
        case ast.A_Const():
            if node.isnull:
                return NULL
            found = ordinal_of(node.val) if is_marked else None
            if found is not None:
                return Literal(*found)
            return _constant(node.val)
        case ast.ParamRef():
            return Parameter(node.number) if node.number else None
        case ast.TypeCast():
            return _cast(node, is_marked)
        case ast.A_Expr(kind=enums.A_Expr_Kind.AEXPR_OP) if node.rexpr is not None:
            return _arithmetic(node, is_marked)
        case ast.A_ArrayExpr():
            elements = [operand_of(element, is_marked) for element in node.elements or ()]
            known = tuple(e for e in elements if e is not None)
            return ArrayOf(known) if len(known) == len(elements) else None
    return None


def _constant(value: Any) -> Constant | None:
    match value:
        case ast.Integer():
            return Constant("integer", value.ival or 0)
        case ast.Float():
            return Constant("numeric", (value.fval or "").encode())
        case ast.String():
            return Constant("string", (value.sval or "").encode())
        case ast.Boolean():
            return Constant("boolean", bool(value.boolval))
    return None


def _cast(node: Any, is_marked: bool) -> Operand | None:
    name = type_name(node.typeName)
    inner = operand_of(node.arg, is_marked)
    # A type modifier changes values (varchar(3) cuts, numeric(10,2) rounds), so such a cast is not followed.
    if inner is None or name is None or node.typeName.typmods:
        return None
    return Cast(inner, name)


def type_name(node: Any) -> str | None:
    """PostgreSQL's internal name of a built-in type, `[]` behind for arrays; None for anything qualified otherwise."""
    names: list[str] = [part.sval for part in node.names or ()]
    if node.setof or node.pct_type or len(names) > 2 or (len(names) == 2 and names[0] != "pg_catalog"):
        return None
    return names[-1] + ("[]" if node.arrayBounds else "")


def _arithmetic(node: Any, is_marked: bool) -> Operand | None:
    operator = node.name[-1].sval
    if len(node.name) != 1 or operator not in ("+", "-", "*"):
        return None
    right = operand_of(node.rexpr, is_marked)
    if right is None or node.rexpr is None:
        return None
    left = Constant("integer", 0) if node.lexpr is None else operand_of(node.lexpr, is_marked)
    return None if left is None else Arithmetic(operator, left, right)
