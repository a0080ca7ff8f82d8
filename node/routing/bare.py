"""Which columns of an INSERT's SELECT are bare constants, whose type the target column decides."""

from __future__ import annotations

from pglast import ast

from node.routing.lexed import Lexed
from node.routing.statement import Statement


def bare_literals(statement: Statement, lexed: Lexed) -> frozenset[int]:
    """Column numbers, from 0. Empty for set operations: there a constant has found its type before."""
    tree = statement.tree(lexed)
    select = getattr(tree, "selectStmt", None)
    found = set()
    for n, target in enumerate(getattr(select, "targetList", None) or ()):
        value = target.val
        if isinstance(value, ast.A_Const) and (value.isnull or isinstance(value.val, ast.String)):
            found.add(n)
    return frozenset(found)
