"""What the shards know about their tables and functions: columns, keys, views, volatility. A frozen value.

It is read by the queries of catalog_queries.py, compared between the shards by whoever reads it, and replaced whole.
Every answer distinguishes *no* from *not known*; nothing exact is ever concluded from *not known*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from node.errors import refused
from node.routing.catalog_queries import SEPARATOR
from node.routing.select_names import ARRAY_TYPES

PATHS_MAX = 64  # search_paths of clients whose readings of one catalog are kept

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
    calls: tuple[str, ...] | None = ()  # functions that a view's text calls; None: not known
    locks: bool = False  # a view with FOR UPDATE
    row_security: bool = False
    foreign: bool = False  # it, or a partition below it, lies elsewhere
    heirs: tuple[tuple[str, str], ...] = ()  # its partitions and children: their rows are among its own
    rules: bool = False  # CREATE RULE: a write may do something else

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
    operators: Mapping[str, str] = field(default_factory=dict)  # name → the most volatile, as `functions`
    type_names: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()  # functions that run unseen: in casts, operator classes, types, domains
    notations: frozenset[str] = frozenset()  # functions that may be called as t.name
    uncertain: bool = False  # nobody knows the search_path: a name that several schemas have means none of them

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
            parts = tuple(names.split(SEPARATOR))
            unique.setdefault((schema, table), []).append(parts)
            if is_primary == "t":
                primary[schema, table] = parts
        parents: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for row in rows.get("dependencies", ()):
            schema, table, above, parent = (value or "" for value in row)
            parents.setdefault((schema, table), []).append((above, parent))
        functions: dict[str, str] = {}
        aggregates: set[str] = set()
        readers: set[str] = set()
        notations: set[str] = set()
        for row in rows.get("functions", ()):
            _, volatility, aggregate, reads, notation, listed_names = (value or "" for value in row)
            named = listed_names.split(SEPARATOR)
            _most_volatile(functions, volatility, named)
            if aggregate == "t":
                aggregates.update(named)
            if volatility != "i" and reads == "t":
                readers.update(named)
            if notation == "t":
                notations.update(named)
        operators: dict[str, str] = {}
        for row in rows.get("operators", ()):
            _most_volatile(operators, row[0] or "", (row[1] or "").split(SEPARATOR))
        types = {int(row[0] or 0): (row[1] or "", row[2] or "") for row in rows.get("types", ())}
        own_types = {name for row in rows.get("own_types", ()) for name in (row[0] or "").split(SEPARATOR)}
        relations = {(row[0] or "", row[1] or ""): row for row in rows.get("relations", ())}
        foreign = _foreign(kinds, parents)
        heirs: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for heir, inherited in parents.items():
            for of in inherited if kinds.get(heir) not in ("v", "m") else ():
                heirs.setdefault(of, []).append(heir)
        tables = {}
        for key, listed in columns.items():
            calls, locks, row_security, rules = _relation(relations.get(key))
            tables[key] = CatalogTable(
                *key,
                kinds[key],
                tuple(listed),
                primary.get(key, ()),
                tuple(unique.get(key, ())),
                tuple(parents.get(key, ())),
                calls,
                locks,
                row_security,
                key in foreign,
                tuple(heirs.get(key, ())),
                rules,
            )
        return cls(
            tables,
            functions,
            frozenset(aggregates),
            types,
            search_path,
            readers=frozenset(readers),
            operators=operators,
            type_names=frozenset(own_types.union(name for _, name in types.values())),
            hidden=frozenset(row[0] or "" for row in rows.get("hidden", ())),
            notations=frozenset(notations),
        )

    def table(self, schema: str | None, name: str) -> CatalogTable | None:
        """By the schema, else by the search path, else the only table of that name."""
        if schema is not None:
            return self.tables.get((schema, name))
        for at in self.search_path:
            found = self.tables.get((at, name))
            if found is not None:
                return found
        named = self._by_name.get(name, ())
        if self.uncertain and len(named) > 1:
            raise refused(
                f'the name "{name}", which several schemas have, after a change of search_path in this transaction',
                hint="name the schema, too",
            )
        return named[0] if len(named) == 1 else None

    def under(self, search_path: tuple[str, ...] | None) -> Catalog:
        """This catalog for a client with that search_path; None: one that nobody knows. Equal paths get one object."""
        if search_path == self.search_path:
            return self
        known: dict[tuple[str, ...] | None, Catalog] | None = self.__dict__.get("_paths")
        if known is None or len(known) >= PATHS_MAX:
            object.__setattr__(self, "_paths", known := {})
        found = known.get(search_path)
        if found is None:
            found = known[search_path] = replace(self, search_path=search_path or (), uncertain=search_path is None)
        return found

    def named(self, schema: str | None, name: str) -> Sequence[CatalogTable]:
        """Every table that the name may mean, whatever the search_path of who asks."""
        if schema is None:
            return self._by_name.get(name, ())
        found = self.tables.get((schema, name))
        return () if found is None else (found,)

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

    def is_array(self, schema: str | None, table: str, column: str) -> bool | None:
        found = self._column(schema, table, column)
        if found is None:
            return None
        return found.type_oid in ARRAY_TYPES or self.types.get(found.type_oid, ("", ""))[1].startswith("_")

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


def _most_volatile(known: dict[str, str], volatility: str, names: Iterable[str]) -> None:
    for name in names:
        known[name] = max(known.get(name, "i"), volatility)  # i < s < v


def _relation(row: Row | None) -> tuple[tuple[str, ...] | None, bool, bool, bool]:
    """calls, locks, row_security, rules"""
    if row is None:
        return None, False, False, False
    _, _, row_security, calls, locks, rules = row
    return tuple(calls.split(SEPARATOR)) if calls else (), locks == "t", row_security == "t", rules == "t"


def _foreign(
    kinds: Mapping[tuple[str, str], str], parents: Mapping[tuple[str, str], Sequence[tuple[str, str]]]
) -> set[tuple[str, str]]:
    """Foreign tables, and what they are partitions of."""
    found: set[tuple[str, str]] = set()
    stack = [key for key, kind in kinds.items() if kind == "f"]
    while stack:
        key = stack.pop()
        if key not in found:
            found.add(key)
            stack.extend(parents.get(key, ()))
    return found


Catalog.EMPTY = Catalog(known=False)
