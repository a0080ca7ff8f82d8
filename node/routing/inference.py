"""Parameters whose type the client left open, and whose type PostgreSQL may take from another place than the key.

The first mention in the statement decides: in `f = $1 AND id = $1` the parameter is what f is, and its bytes are no
bigint's. Such a parameter is *loose*, and says nothing about a key unless its type was declared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from node.routing.operands import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.routing.catalog import Catalog
    from node.routing.statement import Statement

# Types among which it makes no difference which of them a parameter has.
_FAMILIES: Final = tuple(map(frozenset, ((20, 21, 23), (25, 1043), (2950,))))
_CAST_TYPES: Final = {"int8": 20, "int4": 23, "int2": 21, "text": 25, "varchar": 1043, "uuid": 2950}


def loose_parameters(statement: Statement, catalog: Catalog) -> frozenset[int]:
    """Those that are mentioned more than once, and not only beside columns and casts of one family of types."""
    often = {number for number, mentions in statement.mentions if mentions > 1}
    if not often:
        return frozenset()
    types: dict[int, list[int | None]] = {}
    for number, oid in _types(statement, catalog):
        types.setdefault(number, []).append(oid)
    mentions = dict(statement.mentions)
    return frozenset(
        number
        for number in often
        if len(types.get(number, ())) < mentions[number]
        or not any(family.issuperset(types[number]) for family in _FAMILIES)
    )


def _types(statement: Statement, catalog: Catalog) -> Iterator[tuple[int, int | None]]:
    """Every mention beside a column or a cast, with that type; None: not certain."""
    hidden = any(level.others for level in statement.levels)  # their columns may have the same names
    for number, column in statement.compared:
        yield number, None if hidden else _type(statement, catalog, column)
    for number, name in statement.casts:
        yield number, _CAST_TYPES.get(name)
    given: list[tuple[object, str]] = [(operand, name) for name, operand in statement.assigns]
    insert, target = statement.insert, statement.target
    if insert is not None and target is not None:
        table = catalog.table(target.schema, target.name)
        columns = insert.columns or (tuple(c.name for c in table.columns) if table is not None else ())
        given += [(cell, name) for row in insert.rows or () for cell, name in zip(row, columns, strict=False)]
    for operand, name in given:
        if isinstance(operand, Parameter):
            yield operand.number, _type(statement, catalog, name)


def _type(statement: Statement, catalog: Catalog, name: str) -> int | None:
    """The type of every column of that name among the statement's tables, if it is the same for all."""
    tables = [catalog.table(r.schema, r.name) for r in statement.tables]
    found = {column.type_oid for t in tables if t is not None and (column := t.column(name)) is not None}
    return found.pop() if len(found) == 1 and None not in tables else None
