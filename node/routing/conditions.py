"""Conditions on columns, as far as they can narrow a key: a small algebra, still without values or tables.

A condition that is not understood is simply absent: it narrows nothing. `AND` may drop such parts, `OR` may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pglast import ast, enums

from node.routing.operands import NULL, Operand, operand_of


@dataclass(frozen=True, slots=True)
class Column:
    """A column reference as written, at query level `level`."""

    level: int
    schema: str | None
    qualifier: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Compare:
    column: Column
    operator: str  # = < <= > >=, and `is` for IS NOT DISTINCT FROM
    operand: Operand


@dataclass(frozen=True, slots=True)
class Member:
    """column IN (...)."""

    column: Column
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """column = ANY (array)."""

    column: Column
    operand: Operand


@dataclass(frozen=True, slots=True)
class IsNull:
    column: Column


@dataclass(frozen=True, slots=True)
class Same:
    """Two columns are equal."""

    left: Column
    right: Column


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class OneOf:
    parts: tuple[Condition, ...]


Condition = Compare | Member | AnyOf | IsNull | Same | AllOf | OneOf

_SWAPPED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<=", "is": "is"}


class Reader:
    """Reads the expressions of one query level. `sublink` is told of `column IN (SELECT ...)` that must hold."""

    def __init__(self, level: int, is_marked: bool) -> None:
        self.level = level
        self.is_marked = is_marked
        self.semijoins: list[tuple[Column, Any]] = []

    def read(self, node: Any, required: bool = True) -> Condition | None:
        """What `node` being true says. `required`: it is a conjunct of the whole clause."""
        match node:
            case ast.BoolExpr(boolop=enums.BoolExprType.AND_EXPR):
                parts = tuple(p for arg in node.args or () if (p := self.read(arg, required)) is not None)
                return AllOf(parts) if parts else None
            case ast.BoolExpr(boolop=enums.BoolExprType.OR_EXPR):
                either = [self.read(arg, False) for arg in node.args or ()]
                known = tuple(p for p in either if p is not None)
                return OneOf(known) if len(known) == len(either) else None
            case ast.NullTest(nulltesttype=enums.NullTestType.IS_NULL):
                column = self.column(node.arg)
                return IsNull(column) if column is not None else None
            case ast.A_Expr():
                return self._expression(node)
            case ast.SubLink(subLinkType=enums.SubLinkType.ANY_SUBLINK) if required:
                column = self.column(node.testexpr)
                if column is not None and (not node.operName or node.operName[-1].sval == "="):
                    self.semijoins.append((column, node.subselect))
        return None

    def column(self, node: Any) -> Column | None:
        """A plain column; casts between types are not looked through, since they may merge values."""
        if not isinstance(node, ast.ColumnRef):
            return None
        fields = node.fields or ()
        names = [part.sval or "" for part in fields if isinstance(part, ast.String)]
        if len(names) != len(fields) or len(names) > 3:
            return None
        padded: list[str | None] = [None, None, *names]
        return Column(self.level, padded[-3], padded[-2], names[-1])

    def operand(self, node: Any) -> Operand | None:
        return operand_of(node, self.is_marked)

    def _expression(self, node: Any) -> Condition | None:
        operator = node.name[-1].sval
        kind = node.kind
        kinds = enums.A_Expr_Kind
        if len(node.name) > 1 and node.name[0].sval != "pg_catalog":
            return None  # OPERATOR(schema.=): anybody's operator
        if kind == kinds.AEXPR_OP and operator in _SWAPPED:
            return self._compare(node.lexpr, operator, node.rexpr)
        if kind == kinds.AEXPR_NOT_DISTINCT:
            return self._compare(node.lexpr, "is", node.rexpr)
        column = self.column(node.lexpr)
        if column is None:
            return None
        if kind == kinds.AEXPR_IN and operator == "=":
            operands = [self.operand(item) for item in node.rexpr]
            known = tuple(o for o in operands if o is not None)
            return Member(column, known) if len(known) == len(operands) else None
        if kind == kinds.AEXPR_OP_ANY and operator == "=":
            operand = self.operand(node.rexpr)
            return AnyOf(column, operand) if operand is not None else None
        if kind == kinds.AEXPR_BETWEEN:
            low, high = (self.operand(bound) for bound in node.rexpr)
            parts = [Compare(column, ">=", low)] if low is not None else []
            parts += [Compare(column, "<=", high)] if high is not None else []
            return AllOf(tuple(parts)) if parts else None
        return None

    def _compare(self, left: Any, operator: str, right: Any) -> Condition | None:
        if isinstance(left, ast.RowExpr) and isinstance(right, ast.RowExpr) and operator == "=":
            lefts, rights = left.args or (), right.args or ()
            if len(lefts) != len(rights):
                return None
            pairs = zip(lefts, rights, strict=True)
            parts = tuple(p for a, b in pairs if (p := self._compare(a, "=", b)) is not None)
            return AllOf(parts) if parts else None
        a, b = self.column(left), self.column(right)
        if a is not None and b is not None:
            return Same(a, b) if operator == "=" else None
        if a is not None:
            operand = self.operand(right)
        else:
            operand, operator, a = self.operand(left), _SWAPPED[operator], b
        if a is None or operand is None:
            return None
        if operand == NULL:
            # with transform_null_equals `= NULL` means IS NULL
            return IsNull(a) if operator == "is" else None
        return Compare(a, operator, operand)
