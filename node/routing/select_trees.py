"""Small pure questions about parse trees, and the way back from a tree to text, for select.py.

Every field of a pglast node may be None as far as its types say, though not in trees that the parser made: the module
is therefore used untyped here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pglast import ast as _typed_ast
from pglast import enums as _typed_enums
from pglast import parse_sql
from pglast.stream import RawStream

from node.errors import Bug
from node.routing.select_names import CLOCKS, SPREADS

ast: Any = _typed_ast
enums: Any = _typed_enums
Tree = Any


def walk(*roots: object, into_subqueries: bool = True) -> Iterator[Tree]:
    """Every node below `roots`, with an explicit stack: deep expressions must not end in RecursionError."""
    stack = list(roots)
    while stack:
        node = stack.pop()
        if isinstance(node, (tuple, list)):
            stack.extend(node)
        elif isinstance(node, ast.Node):
            yield node
            if isinstance(node, ast.SubLink) and not into_subqueries:
                continue
            stack.extend(getattr(node, name) for name in node)


def changed(node: Any, **changes: object) -> Any:
    """A copy of a tree node with some fields replaced; trees are shared and never written to."""
    return type(node)(**{name: changes.get(name, getattr(node, name)) for name in type(node).__slots__})


def partial_calls(call: Tree, merged: str) -> list[Tree]:
    """What a shard computes for one aggregate."""
    if merged == "avg":
        return [changed(call, funcname=system_name("sum")), changed(call, funcname=system_name("count"))]
    if merged not in SPREADS:
        return [call]
    argument = ast.TypeCast(
        arg=call.args[0], typeName=ast.TypeName(names=system_name("numeric"), typemod=-1, setof=False, pct_type=False)
    )
    square = ast.A_Expr(
        kind=enums.A_Expr_Kind.AEXPR_OP, name=(ast.String("*"),), lexpr=argument, rexpr=argument,
        rexpr_list_start=0, rexpr_list_end=0,
    )  # fmt: skip
    return [
        changed(call, funcname=system_name("count")),
        changed(call, funcname=system_name("sum"), args=(argument,)),
        changed(call, funcname=system_name("sum"), args=(square,)),
        call,
    ]


@dataclass(frozen=True, slots=True)
class Wrapped:
    """An aggregate and what the client does with it: cast(round(coalesce(aggregate, constant), digits))."""

    inner: Tree
    cast: str
    otherwise: bool
    digits: int | None


def unwrap(expression: Tree) -> Wrapped:
    """Takes off one outer cast, one round() and one coalesce() in any order, and an inner cast to plain numeric."""
    cast, otherwise, digits, node = "", False, None, expression
    if isinstance(node, ast.TypeCast):
        cast, node = node.typeName.names[-1].sval, node.arg
    while True:
        if isinstance(node, ast.CoalesceExpr) and not otherwise and all(map(_is_constant, node.args[1:])):
            otherwise, node = True, node.args[0]
        elif digits is None and (found := _rounding(node)) is not None:
            digits, node = found, node.args[0]
        else:
            break
    if isinstance(node, ast.TypeCast) and node.typeName.names[-1].sval == "numeric" and not node.typeName.typmods:
        node = node.arg
    return Wrapped(node, cast, otherwise, digits)


def _is_constant(node: Tree) -> bool:
    return isinstance(node, (ast.A_Const, ast.ParamRef))


def _rounding(node: Tree) -> int | None:
    """How many decimals `round(x, 2)` keeps; of one argument it may be the floating-point function."""
    if not isinstance(node, ast.FuncCall) or function_name(node) != "round" or len(node.args or ()) != 2:
        return None
    given = node.args[1]
    if schema_name(node) not in (None, "pg_catalog"):
        return None
    if isinstance(given, ast.A_Const) and isinstance(given.val, ast.Integer) and 0 <= given.val.ival <= 1000:
        return int(given.val.ival)
    return None


def deparse(tree: Tree, known: set[int]) -> tuple[str, tuple[int, ...] | None]:
    """The text of `tree`, and how its parameters are renumbered when some of the client's are not in it."""
    sql = RawStream()(tree)
    again = parse_sql(sql)[0].stmt
    if again != tree:
        raise Bug("a rewritten SELECT does not read back as it was meant", detail=sql)
    used = sorted(parameters_of(again))
    if len(used) == len(known):
        return sql, None
    for node in walk(again):
        if isinstance(node, ast.ParamRef):
            node.number = used.index(node.number) + 1
    return RawStream()(again), tuple(number - 1 for number in used)


def parameters_of(tree: Tree) -> set[int]:
    return {node.number for node in walk(tree) if isinstance(node, ast.ParamRef)}


def system_name(name: str) -> tuple[Tree, ...]:
    return (ast.String("pg_catalog"), ast.String(name))


def function_name(call: Tree) -> str:
    return str(call.funcname[-1].sval)


def schema_name(call: Tree) -> str | None:
    return str(call.funcname[-2].sval) if len(call.funcname) > 1 else None


def is_star(node: object) -> bool:
    """One select list entry that is several columns: `*`, `t.*`, `(row).*`."""
    if isinstance(node, ast.A_Indirection):
        return isinstance(node.indirection[-1], ast.A_Star)
    return isinstance(node, ast.ColumnRef) and isinstance(node.fields[-1], ast.A_Star)


def last_name(node: Tree) -> str:
    last = node.fields[-1]
    return str(last.sval) if isinstance(last, ast.String) else ""


def output_name(target: Tree) -> str | None:
    """The name a select list entry has for ORDER BY; None for `?column?`, which nobody can mean."""
    return str(target.name) if target.name else _figured(target.val)[0]


def _figured(node: object) -> tuple[str | None, bool]:
    """PostgreSQL's choice of a column name, and whether it is strong: a cast renames only weak ones."""
    match node:
        case ast.ColumnRef():
            return (None if is_star(node) else last_name(node)), True
        case ast.FuncCall():
            return function_name(node), True
        case ast.TypeCast():
            name, strong = _figured(node.arg)
            return (name, True) if strong else (str(node.typeName.names[-1].sval), False)
        case ast.CollateClause():
            return _figured(node.arg)
        case ast.A_Indirection():
            fields = [item for item in node.indirection if isinstance(item, ast.String)]
            return (str(fields[-1].sval), True) if fields else _figured(node.arg)
        case ast.CaseExpr():
            name, strong = _figured(node.defresult)
            return (name, True) if strong else ("case", False)
        case ast.MinMaxExpr():
            return ("greatest" if node.op == enums.MinMaxOp.IS_GREATEST else "least"), True
        case ast.A_Expr() if node.kind == enums.A_Expr_Kind.AEXPR_NULLIF:
            return "nullif", True
        case ast.SQLValueFunction():
            return node.op.name[6:].lower().removesuffix("_n"), True
        case _:
            name = _FIXED_NAMES.get(type(node))
            return name, name is not None


_FIXED_NAMES = {
    ast.CoalesceExpr: "coalesce",
    ast.A_ArrayExpr: "array",
    ast.RowExpr: "row",
    ast.GroupingFunc: "grouping",
    ast.XmlSerialize: "xmlserialize",
}
_LAST_CLOCK = enums.SQLValueFunctionOp.SVFOP_LOCALTIMESTAMP_N.value
_OF_SERVER = (enums.SQLValueFunctionOp.SVFOP_CURRENT_CATALOG, enums.SQLValueFunctionOp.SVFOP_CURRENT_SCHEMA)
JSON_AGGREGATES: Any = (ast.JsonObjectAgg, ast.JsonArrayAgg)


def shown(select: Tree) -> tuple[Tree, ...]:
    """The clauses whose values can be seen in the result or its order."""
    return (select.targetList, select.groupClause, select.sortClause, select.distinctClause, select.havingClause)


def tells_time(node: Tree) -> bool:
    """Its value is the clock of the server it runs on."""
    if isinstance(node, ast.FuncCall):
        name = function_name(node)
        return name in CLOCKS or (name == "age" and len(node.args or ()) == 1)
    return isinstance(node, ast.SQLValueFunction) and node.op.value <= _LAST_CLOCK


def speaks_of_server(node: Tree) -> bool:
    """current_catalog, current_schema: every shard has its own."""
    return isinstance(node, ast.SQLValueFunction) and node.op in _OF_SERVER
