"""Changed statements as text, parsed again and compared before use: a deparser must not lose anything."""

from __future__ import annotations

from typing import Any

from pglast import ast, parse_sql
from pglast.stream import RawStream

from node.errors import Bug


def copy(node: Any, **changes: Any) -> Any:
    """A shallow copy with some fields replaced. Trees are shared by cache, so nothing is ever written to them."""
    return type(node)(**{name: changes.get(name, getattr(node, name)) for name in type(node).__slots__})


def renumbered(tree: Any) -> tuple[Any, tuple[int, ...]]:
    """The tree with its parameters numbered from 1 without gaps, and which (from 0) each of them was."""
    used = sorted({node.number for node in nodes(tree) if isinstance(node, ast.ParamRef) and node.number})
    order = {number: at + 1 for at, number in enumerate(used)}
    return _with_parameters(tree, order), tuple(number - 1 for number in used)


def _with_parameters(node: Any, order: dict[int, int]) -> Any:
    if isinstance(node, (tuple, list)):
        return tuple(_with_parameters(item, order) for item in node)
    if not isinstance(node, ast.Node):
        return node
    if isinstance(node, ast.ParamRef):
        return copy(node, number=order[node.number or 0])
    return copy(node, **{name: _with_parameters(getattr(node, name), order) for name in node})


def nodes(*roots: Any) -> list[Any]:
    """Every node below."""
    found = []
    stack = list(roots)
    while stack:
        node = stack.pop()
        if isinstance(node, (tuple, list)):
            stack.extend(node)
        elif isinstance(node, ast.Node):
            found.append(node)
            stack.extend(getattr(node, name) for name in node)
    return found


def render(tree: Any) -> str:
    """SQL text for a tree."""
    text = str(RawStream()(tree))
    again = parse_sql(text)
    if len(again) != 1 or again[0].stmt != tree:
        raise Bug("a rewritten statement does not read as it was meant", detail=text)
    return text
