"""What is behind the proxy and how it is cut: `[[databases]]`, sharding, and the tables that go with them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from node.config.schema_general import Lanes
from node.config.setting import Bytes, Count, Fraction, Live, Milliseconds, Port, Secret, Table, setting
from node.config.words import (
    DataType,
    Hasher,
    LookupResult,
    MappingKind,
    MirrorLevel,
    ParserEngine,
    PoolerMode,
    QueryParser,
    Rewrite,
    Role,
    VaultAuth,
)

MAX_SHARDS = 1024  # more would be a typing error; a Plan lists shards one by one

Centroid = Annotated[
    tuple[float, ...], Field(strict=False)
]  # TOML has arrays, not tuples; `lax` stops at the outer one
Name = Annotated[str, Field(min_length=1)]
Shard = Annotated[int, Field(ge=0, lt=MAX_SHARDS)]
Weight = Annotated[int, Field(ge=0, le=255)]
KeyText = int | str  # a key as TOML writes it; uuids are strings

_POOLS = Live.POOLS


class PoolOverrides(Table):
    """Pool settings that `[[databases]]` and `[[users]]` may both set over `[general]`."""

    pool_size: Count | None = setting(None, "most server connections of one pool", live=_POOLS)
    min_pool_size: Count | None = setting(None, "connections kept open while idle", live=_POOLS)
    pool_size_primary: Count | None = setting(None, "pool_size of primaries", live=_POOLS)
    pool_size_replica: Count | None = setting(None, "pool_size of replicas", live=_POOLS)
    min_pool_size_primary: Count | None = setting(None, "min_pool_size of primaries", live=_POOLS)
    min_pool_size_replica: Count | None = setting(None, "min_pool_size of replicas", live=_POOLS)
    pooler_mode: PoolerMode | None = setting(None, "pooling mode", live=_POOLS, lax=True)
    idle_timeout: Milliseconds | None = setting(None, "idle server connections close", unit="ms", live=_POOLS)
    idle_timeout_primary: Milliseconds | None = setting(None, "idle_timeout of primaries", unit="ms", live=_POOLS)
    idle_timeout_replica: Milliseconds | None = setting(None, "idle_timeout of replicas", unit="ms", live=_POOLS)
    server_lifetime: Milliseconds | None = setting(None, "greatest age of a server connection", unit="ms", live=_POOLS)
    server_lifetime_jitter: Milliseconds | None = setting(None, "spread of that age", unit="ms", live=_POOLS)
    statement_timeout: Milliseconds | None = setting(
        None, "statement_timeout of server connections", unit="ms", live=_POOLS
    )
    lock_timeout: Milliseconds | None = setting(None, "lock_timeout of server connections", unit="ms", live=_POOLS)
    read_only: bool | None = setting(None, "default_transaction_read_only of server connections", live=_POOLS)


class Database(PoolOverrides):
    """One target: a server that holds one shard of a logical database."""

    name: Name = setting(text="logical database that clients ask for", live=_POOLS)
    role: Role = setting(Role.PRIMARY, "what the server is; auto asks pg_is_in_recovery", live=_POOLS, lax=True)
    host: Name = setting(text="name or address of the server", live=_POOLS)
    port: Port = setting(5432, "its port", live=_POOLS)
    shard: Shard = setting(0, "number of the shard it holds, from 0", live=_POOLS)
    database_name: Name | None = setting(None, "database on the server; absent = name", live=_POOLS)
    user: Name | None = setting(None, "user towards this server, for every client", live=_POOLS)
    password: Secret | None = setting(None, "its password", live=_POOLS)
    resharding_only: bool = setting(False, "only a source of table copies", live=_POOLS)
    lb_weight: Weight = setting(255, "weight for weighted_round_robin", live=_POOLS)
    lanes: Lanes | None = setting(None, "lanes of this database's pools", live=_POOLS, ours=True)

    @property
    def server_database(self) -> str:
        return self.database_name or self.name


class MappingEntry(Table):
    """`{values, shard}`, `{start, end, shard}` (start included, end excluded, either open) or `{shard}` = default."""

    shard: Shard = setting(text="where these keys live")
    values: tuple[KeyText, ...] | None = setting(None, "keys of a list", lax=True)
    start: KeyText | None = setting(None, "first key of a range")
    end: KeyText | None = setting(None, "first key after a range")

    @property
    def kind(self) -> MappingKind:
        if self.values is not None:
            return MappingKind.LIST
        if self.start is not None or self.end is not None:
            return MappingKind.RANGE
        return MappingKind.DEFAULT


class ShardedTable(Table):
    """A rule: which column of which tables decides the shard, and how."""

    database: Name = setting(text="logical database")
    name: Name | None = setting(None, "table; absent = every table that has the column")
    schema_name: Name | None = setting(None, "schema; absent = any", alias="schema")  # pydantic owns the name "schema"
    column: Name = setting(text="the key column")
    data_type: DataType = setting(DataType.BIGINT, "how keys are read and hashed", lax=True)
    hasher: Hasher = setting(Hasher.POSTGRES, "hash function", lax=True)
    primary: bool = setting(False, "marks the table that owns the key; routing does not use it")
    mapping: tuple[MappingEntry, ...] | None = setting(None, "list, range and default entries", lax=True)
    centroids: tuple[Centroid, ...] = setting((), "centroids of vector sharding", lax=True)
    centroids_path: str | None = setting(None, "JSON file with centroids")
    centroid_probes: Count = setting(0, "nearest centroids searched; 0 = root of their number")
    lookup_query: str | None = setting(None, "statement with $1 that translates the key")
    lookup_result: LookupResult = setting(LookupResult.VALUE, "the lookup gives a key, or the shard", lax=True)


class ShardedMapping(Table):
    """Old form of `mapping`: one entry, joined to the sharded table with the same database, table and column."""

    database: Name = setting(text="logical database")
    table: Name | None = setting(None, "table; absent = the rule without a table")
    schema_name: Name | None = setting(None, "schema", alias="schema")
    column: Name = setting(text="the key column")
    kind: MappingKind = setting(text="list, range or default", lax=True)
    start: KeyText | None = setting(None, "first key of a range")
    end: KeyText | None = setting(None, "first key after a range")
    values: tuple[KeyText, ...] | None = setting(None, "keys of a list", lax=True)
    shard: Shard = setting(text="where these keys live")


class ShardedSchema(Table):
    database: Name = setting(text="logical database")
    name: Name | None = setting(None, "schema; absent = all others")
    shard: Shard | None = setting(None, "where its tables live")
    all: bool = setting(False, "its tables live on every shard")


class OmnishardedTables(Table):
    """Tables with the same rows on every shard."""

    database: Name = setting(text="logical database")
    tables: tuple[Name, ...] = setting(text="names of the tables", lax=True)
    sticky: bool = setting(False, "one client always reads them on one shard")


class RewriteRules(Table):
    enabled: bool = setting(False, "not used; the modes act by themselves", settable="rewrite_enabled")
    shard_key: Rewrite = setting(
        Rewrite.ERROR, "UPDATE of the key column", settable="rewrite_shard_key_updates", lax=True
    )
    split_inserts: Rewrite = setting(
        Rewrite.ERROR, "INSERT of several rows", settable="rewrite_split_inserts", lax=True
    )
    primary_key: Rewrite = setting(
        Rewrite.IGNORE, "INSERT without a bigint primary key", settable="rewrite_primary_key", lax=True
    )


class Tcp(Table):
    """Socket options of both sides; new connections use new values."""

    keepalive: bool = setting(True, "send keepalives")
    time: Milliseconds | None = setting(None, "idle time before the first keepalive", unit="ms")
    interval: Milliseconds | None = setting(None, "time between keepalives", unit="ms")
    retries: Count | None = setting(None, "unanswered keepalives until the connection is broken")
    user_timeout: Milliseconds | None = setting(None, "unacknowledged data until the connection is broken", unit="ms")
    congestion_control: str | None = setting(None, "congestion control algorithm")


class Memory(Table):
    """Buffers of PgDog's runtime; ours sizes its own."""

    net_buffer: Bytes = setting(4096, "network buffer", unit="bytes")
    message_buffer: Bytes = setting(4096, "message buffer", unit="bytes")
    stack_size: Bytes = setting(2_097_152, "stack of a thread", unit="bytes", live=Live.RESTART)


class Mirroring(Table):
    source_db: Name = setting(text="database whose traffic is copied")
    destination_db: Name = setting(text="database that receives the copy")
    queue_length: Count | None = setting(None, "queue per client; absent = general.mirror_queue")
    exposure: Fraction | None = setting(None, "share of transactions; absent = general.mirror_exposure")
    level: MirrorLevel = setting(MirrorLevel.ALL, "which statements", lax=True)


class Plugin(Table):
    name: Name = setting(text="shared library", live=Live.RESTART)
    config: str | None = setting(None, "its configuration file", live=Live.RESTART)


class MultiTenant(Table):
    column: Name = setting(text="column that every statement must filter by")


class ReplicaLag(Table):
    """Older form of ban_replica_lag."""

    check_interval: Milliseconds = setting(1000, "period of lag checks", unit="ms")
    max_age: Milliseconds | None = setting(None, "replicas that lag longer are banned", unit="ms")


class Replication(Table):
    pg_dump_path: str = setting("pg_dump", "program that copies schemas")


class QueryParsers(Table):
    """Parser settings of one database."""

    database: Name = setting(text="logical database")
    level: QueryParser | None = setting(None, "how much SQL is parsed", lax=True)
    engine: ParserEngine | None = setting(None, "interface of PgDog's parser", lax=True)


class Otel(Table):
    endpoint: str | None = setting(None, "OTLP receiver", live=Live.RESTART, variable="OTEL_EXPORTER_OTLP_ENDPOINT")
    namespace: str = setting("pgdog", "in front of metric names", live=Live.RESTART, variable="PGDOG_OTEL_NAMESPACE")
    headers: Secret | None = setting(
        None, "headers of the request", live=Live.RESTART, variable="OTEL_EXPORTER_OTLP_HEADERS"
    )
    datadog_api_key: Secret | None = setting(None, "key of Datadog", live=Live.RESTART, variable="DD_API_KEY")
    push_interval: Milliseconds = setting(
        10_000, "time between pushes", unit="ms", live=Live.RESTART, variable="OTEL_METRIC_EXPORT_INTERVAL"
    )


class Vault(Table):
    url: str | None = setting(None, "address of Vault")
    namespace: str | None = setting(None, "its namespace")
    auth_method: VaultAuth | None = setting(None, "how this node logs in", lax=True)
    auth_mount: str | None = setting(None, "where that method is mounted")
    kubernetes_role: str | None = setting(None, "role of the service account")
    kubernetes_jwt_path: str = setting("/var/run/secrets/kubernetes.io/serviceaccount/token", "file with its token")
    approle_role_id: str | None = setting(None, "role id")
    approle_secret_id_file: str | None = setting(None, "file with the secret id")
    client_token_ttl: Count = setting(60, "life of a client's token", unit="s")
