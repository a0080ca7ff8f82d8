"""What the shards know about their tables and functions: columns, keys, views, volatility. A frozen value.

It is read by five queries (`CATALOG_QUERIES`), compared between the shards by whoever reads it, and replaced whole.
Every answer distinguishes *no* from *not known*; nothing exact is ever concluded from *not known*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

COLUMNS_QUERY: Final = """
SELECT n.nspname, c.relname, c.relkind, a.attname, a.atttypid, a.atttypmod,
       coalesce(k.collname IN ('C', 'POSIX') OR k.collprovider = 'b'
                OR (k.collprovider = 'd' AND (SELECT d.datcollate IN ('C', 'POSIX') FROM pg_catalog.pg_database d
                                              WHERE d.datname = pg_catalog.current_database())), true),
       coalesce(NOT k.collisdeterministic, false),
       -- without the relation: that would wait for whoever alters the table
       CASE WHEN a.attgenerated = '' THEN coalesce(pg_catalog.pg_get_expr(f.adbin, 0), '') ELSE '' END,
       a.attidentity <> '', a.attgenerated <> '', a.attnotnull
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_collation k ON k.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND c.relpersistence <> 't'
 ORDER BY n.nspname, c.relname, a.attnum"""

INDEXES_QUERY: Final = """
SELECT n.nspname, c.relname, i.indisprimary,
       pg_catalog.array_to_string(ARRAY(SELECT coalesce(a.attname::text, '')
                                          FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (num, at)
                                          LEFT JOIN pg_catalog.pg_attribute a
                                            ON a.attrelid = i.indrelid AND a.attnum = k.num
                                         WHERE k.at <= i.indnkeyatts ORDER BY k.at), E'\\x01')
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE i.indisunique AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY n.nspname, c.relname, i.indexrelid"""

DEPENDENCIES_QUERY: Final = """
SELECT DISTINCT vn.nspname, v.relname, tn.nspname, t.relname
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
  JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
       AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> v.oid
  JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
 WHERE vn.nspname NOT IN ('pg_catalog', 'information_schema')
UNION
SELECT cn.nspname, c.relname, pn.nspname, p.relname
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
  JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
  JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 ORDER BY 1, 2, 3, 4"""

FUNCTIONS_QUERY: Final = """
SELECT n.nspname, p.proname, p.provolatile, p.prokind, l.lanname
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 ORDER BY 1, 2, 3, 4, 5"""

TYPES_QUERY: Final = """
SELECT t.oid, n.nspname, t.typname
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY 1"""

CATALOG_QUERIES: Final[Mapping[str, str]] = {
    "columns": COLUMNS_QUERY,
    "indexes": INDEXES_QUERY,
    "dependencies": DEPENDENCIES_QUERY,
    "functions": FUNCTIONS_QUERY,
    "types": TYPES_QUERY,
}
CATALOG_QUERY: Final = COLUMNS_QUERY

Row = Sequence[str | None]


@dataclass(frozen=True, slots=True)
class CatalogColumn:
    name: str
    type_oid: int
    type_mod: int = -1
    bytewise: bool = True  # its collation orders and compares by bytes (or the type has no collation)
    nondeterministic: bool = False  # unequal bytes may compare as equal
    default: str = ""  # the expression, empty for none
    identity: bool = False
    generated: bool = False
    not_null: bool = False


@dataclass(frozen=True, slots=True)
class CatalogTable:
    schema: str
    name: str
    kind: str = "r"  # pg_class.relkind
    columns: tuple[CatalogColumn, ...] = ()
    primary_key: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    parents: tuple[tuple[str, str], ...] = ()  # (schema, table) a view reads or a partition belongs to

    def column(self, name: str) -> CatalogColumn | None:
        return next((c for c in self.columns if c.name == name), None)


@dataclass(frozen=True)
class Catalog:
    tables: Mapping[tuple[str, str], CatalogTable] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)  # name → the most volatile: i, s, v
    aggregates: frozenset[str] = frozenset()
    types: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    search_path: tuple[str, ...] = ("public",)
    known: bool = True  # False: nothing was read yet
    readers: frozenset[str] = frozenset()  # functions whose bodies may read tables: SQL, PL/pgSQL ..., not immutable

    EMPTY: ClassVar[Catalog]

    @classmethod
    def from_rows(cls, rows: Mapping[str, Iterable[Row]], search_path: tuple[str, ...] = ("public",)) -> Catalog:
        """From the text results of CATALOG_QUERIES, by the same names."""
        columns: dict[tuple[str, str], list[CatalogColumn]] = {}
        kinds: dict[tuple[str, str], str] = {}
        for row in rows["columns"]:
            schema, table, kind, name, oid, mod, *flags, _ = (value or "" for value in row)
            bytewise, loose, default, identity, generated = flags
            kinds[schema, table] = kind
            columns.setdefault((schema, table), []).append(
                CatalogColumn(
                    name,
                    int(oid),
                    int(mod),
                    bytewise == "t",
                    loose == "t",
                    default,
                    identity == "t",
                    generated == "t",
                    row[11] == "t",
                )  # fmt: skip
            )
        primary: dict[tuple[str, str], tuple[str, ...]] = {}
        unique: dict[tuple[str, str], list[tuple[str, ...]]] = {}
        for row in rows.get("indexes", ()):
            schema, table, is_primary, names = (value or "" for value in row)
            parts = tuple(names.split("\x01"))
            unique.setdefault((schema, table), []).append(parts)
            if is_primary == "t":
                primary[schema, table] = parts
        parents: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for row in rows.get("dependencies", ()):
            schema, table, above, parent = (value or "" for value in row)
            parents.setdefault((schema, table), []).append((above, parent))
        functions: dict[str, str] = {}
        aggregates = set()
        readers = set()
        for row in rows.get("functions", ()):
            schema, name, volatility, kind, language = (value or "" for value in row)
            functions[name] = max(functions.get(name, "i"), volatility)  # i < s < v
            if kind == "a":
                aggregates.add(name)
            if volatility != "i" and schema != "pg_catalog" and language not in ("c", "internal"):
                readers.add(name)
        types = {int(row[0] or 0): (row[1] or "", row[2] or "") for row in rows.get("types", ())}
        tables = {
            key: CatalogTable(
                *key,
                kinds[key],
                tuple(listed),
                primary.get(key, ()),
                tuple(unique.get(key, ())),
                tuple(parents.get(key, ())),
            )  # fmt: skip
            for key, listed in columns.items()
        }
        return cls(tables, functions, frozenset(aggregates), types, search_path, readers=frozenset(readers))

    def table(self, schema: str | None, name: str) -> CatalogTable | None:
        """By the schema, else by the search path, else the only table of that name."""
        if schema is not None:
            return self.tables.get((schema, name))
        for at in self.search_path:
            found = self.tables.get((at, name))
            if found is not None:
                return found
        named = self._by_name.get(name, ())
        return named[0] if len(named) == 1 else None

    @property
    def _by_name(self) -> dict[str, list[CatalogTable]]:
        index: dict[str, list[CatalogTable]] | None = self.__dict__.get("_index")
        if index is None:
            index = {}
            for table in self.tables.values():
                index.setdefault(table.name, []).append(table)
            object.__setattr__(self, "_index", index)
        return index

    # --- what select.py asks (its protocol `Knowledge`); None: not known -------------------------------------------

    def columns_of(self, schema: str | None, table: str) -> Sequence[str] | None:
        found = self.table(schema, table)
        return None if found is None else [c.name for c in found.columns]

    def is_bytewise(self, schema: str | None, table: str, column: str) -> bool | None:
        found = self._column(schema, table, column)
        return None if found is None else found.bytewise

    def is_nondeterministic(self, schema: str | None, table: str, column: str) -> bool | None:
        found = self._column(schema, table, column)
        return None if found is None else found.nondeterministic

    def is_aggregate(self, function: str) -> bool | None:
        if function in self.aggregates:
            return True
        return False if function in self.functions else None

    def volatility(self, function: str) -> str | None:
        """`i`, `s` or `v`: the most volatile function of that name."""
        return self.functions.get(function)

    def _column(self, schema: str | None, table: str, column: str) -> CatalogColumn | None:
        found = self.table(schema, table)
        return None if found is None else found.column(column)


Catalog.EMPTY = Catalog(known=False)
