"""What a file of SQL tells about its tables, for `pgmurmur route`, which has no server to ask.

Two sources: CREATE TABLE statements in the file, which are facts, and, for other tables under a rule that names only
a column, the file's own statements: a table that is used together with that column is *assumed* to have it. A line
that rests on an assumption says so. Never assumed for an INSERT without a column list, since its order is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from node.errors import ClientFault
from node.routing.built_in import sharing_catalog
from node.routing.cache import StatementCache
from node.routing.catalog import Catalog, CatalogColumn, CatalogTable
from node.routing.lexed import Lexed
from node.routing.statement import Kind, Statement
from node.routing.topology import DataType, Topology

# OIDs of pg_type, fixed by PostgreSQL's catalog headers; what is not listed counts as unknown (0)
_OIDS = {
    "int2": 21, "smallserial": 21, "serial2": 21,
    "int4": 23, "serial": 23, "serial4": 23,
    "int8": 20, "bigserial": 20, "serial8": 20,
    "text": 25, "varchar": 1043, "bpchar": 1042, "uuid": 2950, "bool": 16, "numeric": 1700,
    "float4": 700, "float8": 701, "date": 1082, "timestamp": 1114, "timestamptz": 1184, "interval": 1186,
    "json": 114, "jsonb": 3802, "bytea": 17,
}  # fmt: skip
_TEXT = frozenset({25, 1042, 1043})  # their order depends on a collation that only the server knows
_KEY_OIDS = {DataType.BIGINT: 20, DataType.VARCHAR: 25, DataType.UUID: 2950, DataType.VECTOR: 0}

_WORD = re.compile(rb"[a-z_\x80-\xff][a-z0-9_$\x80-\xff]*")

Tables = dict[tuple[str, str], CatalogTable]


class FileCatalog:
    """The catalog of a file, and which of its tables are only assumed."""

    def __init__(self, statements: Sequence[bytes], topology: Topology, cache: StatementCache) -> None:
        self._assumed: dict[str, str] = {}
        self._topology = topology
        tables: Tables = {}
        uses: list[tuple[Statement, Lexed]] = []
        for sql in statements:
            try:
                (statement, *_), lexed = cache.lookup(sql)
            except (ClientFault, ValueError):
                continue  # not readable, or empty: its own line will say so
            if statement.kind is Kind.DDL and statement.tag == "CREATE TABLE":
                _create(statement.tree(lexed), tables)
            else:
                uses.append((statement, lexed))
        self._assume(uses, tables)
        self.catalog = Catalog(tables)
        self.sharing = sharing_catalog(self.catalog)

    def notes(self, statement: Statement) -> tuple[str, ...]:
        """What the routing of this statement takes for granted."""
        names = dict.fromkeys(reference.name for reference in statement.tables)
        return tuple(f"assuming that {name} has {self._assumed[name]}" for name in names if name in self._assumed)

    def _assume(self, uses: Iterable[tuple[Statement, Lexed]], tables: Tables) -> None:
        rules = {rule.column: rule for rule in self._topology.column_rules}
        if not rules:
            return
        created = {name for _, name in tables}
        found: dict[tuple[str, str], dict[str, None]] = {}
        listless = set()
        for statement, lexed in uses:
            words = {word.decode("utf-8", "replace") for word in _WORD.findall(lexed.sql.lower())}
            if statement.insert is not None and statement.insert.columns is None and statement.target is not None:
                listless.add(statement.target.name)
            for reference in statement.tables:
                if reference.name not in created and not self._topology.is_sharded(reference.schema, reference.name):
                    columns = found.setdefault((reference.schema or "public", reference.name), {})
                    columns.update(dict.fromkeys(column for column in rules if column in words))
        for (schema, name), columns in found.items():
            if columns and name not in listless:
                self._assumed[name] = ", ".join(columns)
                listed = tuple(_column(column, _KEY_OIDS[rules[column].data_type]) for column in columns)
                tables[schema, name] = CatalogTable(schema, name, columns=listed)


def _column(name: str, oid: int, *, default: str = "", not_null: bool = False, identity: bool = False) -> CatalogColumn:
    return CatalogColumn(name, oid, bytewise=oid not in _TEXT, default=default, not_null=not_null, identity=identity)


def _create(tree: Any, tables: Tables) -> None:
    """Reads a CREATE TABLE. The parse tree is pglast's, taken as it comes: `Statement` has no such fact."""
    columns: list[CatalogColumn] = []
    keys: tuple[str, ...] = ()
    unique: list[tuple[str, ...]] = []
    for element in tree.tableElts or ():
        kind = type(element).__name__
        if kind == "ColumnDef":
            constraints = {one.contype.name for one in element.constraints or ()}
            type_name = element.typeName.names[-1].sval if element.typeName is not None else ""
            columns.append(
                _column(
                    element.colname,
                    _OIDS.get(type_name, 0),
                    default="(default)" if "CONSTR_DEFAULT" in constraints or "serial" in type_name else "",
                    not_null=bool(constraints & {"CONSTR_NOTNULL", "CONSTR_PRIMARY"}),
                    identity="CONSTR_IDENTITY" in constraints,
                )
            )
            if "CONSTR_PRIMARY" in constraints:
                keys = (element.colname,)
            if constraints & {"CONSTR_PRIMARY", "CONSTR_UNIQUE"}:
                unique.append((element.colname,))
        elif kind == "Constraint" and element.keys:
            names = tuple(key.sval for key in element.keys)
            if element.contype.name == "CONSTR_PRIMARY":
                keys = names
            unique.append(names)
    schema, name = tree.relation.schemaname or "public", tree.relation.relname
    tables[schema, name] = CatalogTable(schema, name, "r", tuple(columns), keys, tuple(unique))
