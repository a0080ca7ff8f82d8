"""The whole configuration: both files as one frozen value.

Declared in pieces (`schema_general`, `schema_databases`, `schema_users`, `schema_flock`), read here. Keys, types,
defaults and units are PgDog's; what is ours says `ours=True`. Limits that nobody configures are in `limits`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from node.config.schema_databases import (
    Database,
    MappingEntry,
    Memory,
    Mirroring,
    MultiTenant,
    OmnishardedTables,
    Otel,
    Plugin,
    QueryParsers,
    ReplicaLag,
    Replication,
    RewriteRules,
    ShardedMapping,
    ShardedSchema,
    ShardedTable,
    Tcp,
    Vault,
)
from node.config.schema_flock import Discovery, Sync
from node.config.schema_general import General
from node.config.schema_users import Admin, User
from node.config.setting import Ignored, Live, Table, setting

__all__ = [
    "Admin",
    "Config",
    "Database",
    "Discovery",
    "General",
    "MappingEntry",
    "OmnishardedTables",
    "RewriteRules",
    "ShardedMapping",
    "ShardedSchema",
    "ShardedTable",
    "Sync",
    "Tcp",
    "User",
]


class Control(Ignored):
    endpoint: Any = setting(None, "enterprise edition")
    token: Any = setting(None, "enterprise edition")
    metrics_interval: Any = setting(None, "enterprise edition")
    stats_interval: Any = setting(None, "enterprise edition")
    active_queries_interval: Any = setting(None, "enterprise edition")
    request_timeout: Any = setting(None, "enterprise edition")


class Qos(Ignored):
    enabled: Any = setting(None, "enterprise edition")
    max_entries: Any = setting(None, "enterprise edition")


class QueryStats(Ignored):
    enabled: Any = setting(None, "enterprise edition")
    query_plans_threshold: Any = setting(None, "enterprise edition")
    query_plans_sample_rate: Any = setting(None, "enterprise edition")
    query_plans_cache: Any = setting(None, "enterprise edition")
    query_plans_max_age: Any = setting(None, "enterprise edition")


class Autodiscovery(Ignored):
    enabled: Any = setting(None, "enterprise edition")
    check_interval: Any = setting(None, "enterprise edition")
    databases: Any = setting(None, "enterprise edition")


class Config(Table):
    """`pgdog.toml` and `users.toml` together. `users` are in the second file; `admin` may be in either."""

    general: General = setting(General(), "pools, listener, routing")
    databases: tuple[Database, ...] = setting((), "one entry per server and shard", live=Live.POOLS, lax=True)
    users: tuple[User, ...] = setting((), "who may log in", live=Live.POOLS, lax=True)
    admin: Admin = setting(Admin(), "the console")
    sharded_tables: tuple[ShardedTable, ...] = setting((), "key columns", lax=True)
    sharded_mappings: tuple[ShardedMapping, ...] = setting((), "old form of mapping", lax=True)
    sharded_schemas: tuple[ShardedSchema, ...] = setting((), "schemas that live on one shard", lax=True)
    omnisharded_tables: tuple[OmnishardedTables, ...] = setting((), "tables equal on all shards", lax=True)
    rewrite: RewriteRules = setting(RewriteRules(), "statements that are changed on their way")
    tcp: Tcp = setting(Tcp(), "socket options")
    memory: Memory = setting(Memory(), "buffers")
    multi_tenant: MultiTenant | None = setting(None, "tenant column")
    plugins: tuple[Plugin, ...] = setting((), "shared libraries", live=Live.RESTART, lax=True)
    replica_lag: ReplicaLag | None = setting(None, "older form of ban_replica_lag")
    replication: Replication = setting(Replication(), "schema copies")
    mirroring: tuple[Mirroring, ...] = setting((), "copied traffic", lax=True)
    query_parsers: tuple[QueryParsers, ...] = setting((), "parser settings per database", lax=True)
    otel: Otel = setting(Otel(), "metrics pushed by OTLP", live=Live.RESTART)
    vault: Vault | None = setting(None, "secrets kept in Vault")
    discovery: Discovery = setting(Discovery(), "how members find each other", live=Live.RESTART, ours=True)
    sync: Sync = setting(Sync(), "how members agree", ours=True)
    control: Control | None = setting(None, "enterprise edition")
    qos: Qos | None = setting(None, "enterprise edition")
    query_stats: QueryStats | None = setting(None, "enterprise edition")
    autodiscovery: Autodiscovery | None = setting(None, "enterprise edition")

    @cached_property
    def entries(self) -> dict[str, tuple[Database, ...]]:
        """Targets by logical database, in the order of first entries. Indexed: a file may have thousands of users."""
        return _grouped(self.databases)

    @cached_property
    def users_by_name(self) -> dict[str, tuple[User, ...]]:
        return _grouped(self.users)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """pydantic copies what was computed too: an index of the old users would answer for the new ones."""
        copy = super().model_copy(update=update, deep=deep)
        for name in ("entries", "users_by_name"):
            copy.__dict__.pop(name, None)
        return copy

    def database_names(self) -> tuple[str, ...]:
        """Logical databases in the order of their first entry."""
        return tuple(self.entries)

    def targets(self, database: str) -> tuple[Database, ...]:
        return self.entries.get(database, ())

    def shards(self, database: str) -> int:
        """Number of shards: one more than the greatest; 0 for an unknown database."""
        return max((entry.shard + 1 for entry in self.targets(database)), default=0)


_Named = TypeVar("_Named", Database, User)


def _grouped(entries: Iterable[_Named]) -> dict[str, tuple[_Named, ...]]:
    found: dict[str, list[_Named]] = {}
    for entry in entries:
        found.setdefault(entry.name, []).append(entry)
    return {name: tuple(group) for name, group in found.items()}


ENTERPRISE = ("control", "qos", "query_stats", "autodiscovery")

# a second name a key may be written by: PgDog's aliases
ALIASES: dict[str, dict[str, str]] = {
    "general": {"max_pool_size": "default_pool_size"},
    "databases": {"max_pool_size": "pool_size"},
}

TABLES: dict[str, type[BaseModel]] = {
    "general": General,
    "databases": Database,
    "users": User,
    "admin": Admin,
    "sharded_tables": ShardedTable,
    "sharded_mappings": ShardedMapping,
    "sharded_schemas": ShardedSchema,
    "omnisharded_tables": OmnishardedTables,
    "rewrite": RewriteRules,
    "tcp": Tcp,
    "memory": Memory,
    "multi_tenant": MultiTenant,
    "plugins": Plugin,
    "replica_lag": ReplicaLag,
    "replication": Replication,
    "mirroring": Mirroring,
    "query_parsers": QueryParsers,
    "otel": Otel,
    "vault": Vault,
    "discovery": Discovery,
    "sync": Sync,
    "control": Control,
    "qos": Qos,
    "query_stats": QueryStats,
    "autodiscovery": Autodiscovery,
    "sharded_tables.mapping": MappingEntry,
}

ARRAYS = frozenset(
    {
        "databases",
        "users",
        "sharded_tables",
        "sharded_mappings",
        "sharded_schemas",
        "omnisharded_tables",
        "plugins",
        "mirroring",
        "query_parsers",
        "sharded_tables.mapping",
    }
)


def brackets(table: str) -> str:
    """How the table is written in the files: [general], [[databases]]."""
    return f"[[{table}]]" if table in ARRAYS else f"[{table}]"


def file_key(table: str, field: str) -> str:
    """The name of a field in the files."""
    return TABLES[table].model_fields[field].alias or field


def file_keys(table: str) -> tuple[str, ...]:
    """Every key a table may hold, as written in the files, aliases last."""
    return (*(file_key(table, name) for name in TABLES[table].model_fields), *ALIASES.get(table, {}))
