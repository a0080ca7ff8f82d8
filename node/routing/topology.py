"""Which tables of a database are sharded, by which column, and how: frozen values and two questions.

Names are stored as PostgreSQL stores them: already folded to lower case unless they were quoted. `rule` answers in
the order of the configuration, except that a rule which names the table beats a rule which only names a column.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.routing.shard_map import Mapping


class DataType(StrEnum):
    """How a key's values are read and hashed; int2, int4 and int8 are all BIGINT."""

    BIGINT = "bigint"
    VARCHAR = "varchar"
    UUID = "uuid"
    VECTOR = "vector"


class Hasher(StrEnum):
    POSTGRES = "postgres"
    SHA1 = "sha1"


@dataclass(frozen=True, slots=True)
class ShardedTable:
    """One rule: `column` decides on which shard a row lives. `name` None: every table that has the column."""

    schema: str | None
    name: str | None
    column: str
    data_type: DataType = DataType.BIGINT
    hasher: Hasher = Hasher.POSTGRES
    mapping: Mapping | None = None
    centroids: tuple[tuple[float, ...], ...] = ()
    probes: int = 0  # nearest centroids a vector search visits; 0 means ceil(sqrt(len(centroids)))
    lookup_query: str | None = None
    lookup_is_shard: bool = False  # the lookup's answer is a shard number, not another key

    @property
    def function(self) -> tuple[object, ...]:
        """Two tables are placed alike exactly when these are equal: equal keys then live on the same shard."""
        return (self.data_type, self.hasher, self.mapping, self.centroids, self.lookup_query, self.lookup_is_shard)


@dataclass(frozen=True, slots=True)
class ShardedSchema:
    """Everything in schema `name` (None: any other schema) lives on `shard`; shard None means on all of them."""

    name: str | None
    shard: int | None


@dataclass(frozen=True, slots=True)
class Topology:
    """The routing half of a configuration version for one database."""

    database: str
    shards: int
    tables: tuple[ShardedTable, ...] = ()
    omnisharded: frozenset[str] = frozenset()
    cross_shard_disabled: bool = False
    omnisharded_sticky: bool = False
    rewrite_shard_key: str = "error"  # UPDATE of a key column: error | rewrite | ignore
    two_phase: str = "auto"  # auto | on | off
    schemas: tuple[ShardedSchema, ...] = ()
    _named: dict[str, tuple[ShardedTable, ...]] = field(init=False, repr=False, compare=False)
    _by_column: dict[str, ShardedTable] = field(init=False, repr=False, compare=False)
    has_lookups: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named: dict[str, tuple[ShardedTable, ...]] = {}
        by_column: dict[str, ShardedTable] = {}
        for rule in self.tables:
            if rule.name is not None:
                named[rule.name] = (*named.get(rule.name, ()), rule)
            else:
                by_column.setdefault(rule.column, rule)
        object.__setattr__(self, "_named", named)
        object.__setattr__(self, "has_lookups", any(rule.lookup_query is not None for rule in self.tables))
        object.__setattr__(self, "_by_column", by_column)

    @property
    def column_rules(self) -> tuple[ShardedTable, ...]:
        """Rules that apply to any table which has their column."""
        return tuple(self._by_column.values())

    @property
    def sharding_functions(self) -> tuple[ShardedTable, ...]:
        """One rule per distinct placement; `sharding_key` hints need exactly one."""
        seen: dict[tuple[object, ...], ShardedTable] = {}
        for rule in self.tables:
            seen.setdefault(rule.function, rule)
        return tuple(seen.values())

    def rule(self, schema: str | None, table: str, column: str | None = None) -> ShardedTable | None:
        """The rule that places `table`; with `column`, only if that column is (or may be) its key."""
        if self._is_omnisharded(schema, table):
            return None
        for rule in self._named.get(table, ()):
            if _schema_fits(rule, schema):
                return rule if column is None or rule.column == column else None
        if column is not None:
            found = self._by_column.get(column)
            if found is not None and _schema_fits(found, schema):
                return found
        return None

    def is_sharded(self, schema: str | None, table: str) -> bool:
        """A rule names this table. Column rules need the catalog: see `node.routing.tables`."""
        return self.rule(schema, table) is not None

    def schema_shard(self, schema: str) -> ShardedSchema | None:
        """Sharding by schema: the entry for this schema, else the catch-all."""
        catch_all: ShardedSchema | None = None
        for entry in self.schemas:
            if entry.name == schema:
                return entry
            if entry.name is None:
                catch_all = entry
        return catch_all

    def _is_omnisharded(self, schema: str | None, table: str) -> bool:
        listed = self.omnisharded
        return bool(listed) and (table in listed or (schema is not None and f"{schema}.{table}" in listed))

    def is_omnisharded(self, schema: str | None, table: str) -> bool:
        """Listed as living completely on every shard."""
        return self._is_omnisharded(schema, table)


def _schema_fits(rule: ShardedTable, schema: str | None) -> bool:
    # A table without a schema is found through search_path, which routing cannot see; a rule for that name is the
    # safe reading: treating a sharded table as unsharded loses rows, the reverse only asks more shards.
    return rule.schema is None or schema is None or rule.schema == schema
