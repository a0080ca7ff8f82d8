"""`[general]`: listener, pools, routing, authentication. Keys, defaults and units as in PgDog; ours are at the end."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from node.config.setting import INFINITE, Bytes, Count, Fraction, Live, Milliseconds, Port, Table, setting
from node.config.words import (
    AuthType,
    Balancing,
    CopyFormat,
    CutoverAction,
    LoadSchema,
    LogFormat,
    ParserEngine,
    Passthrough,
    PoolerMode,
    PreparedStatements,
    QueryParser,
    ReadWriteSplit,
    ReadWriteStrategy,
    Recovery,
    SizeAction,
    SystemCatalogs,
    TlsVerify,
    UniqueId,
)

# how often PgDog's twin is simply PGDOG_ + the key in capitals: nearly always, so only exceptions are written out
NO_TWIN = ""

Lanes = Literal["auto", "off"] | Annotated[int, Field(ge=0, le=64)]

_POOLS = Live.POOLS
_RESTART = Live.RESTART


class General(Table):
    # -- listener, process, logging
    host: str = setting("0.0.0.0", "address clients connect to", live=_RESTART)
    port: Port = setting(6432, "port clients connect to; 0 picks a free one", live=_RESTART)
    workers: Count = setting(2, "members on this host that share the client port", live=_RESTART)
    shutdown_timeout: Milliseconds = setting(
        60_000, "how long a graceful stop waits for running transactions", unit="ms"
    )
    shutdown_termination_timeout: Milliseconds | None = setting(
        None, "extra time after shutdown_timeout in which running queries are cancelled", unit="ms"
    )
    broadcast_address: str | None = setting(None, "multicast group of PgDog's peer discovery", live=_RESTART)
    broadcast_port: Port | None = setting(None, "multicast port; port + 1 when absent", live=_RESTART)
    query_log: str | None = setting(None, "file that receives every query")
    query_log_stdout: bool = setting(False, "log every query to standard output")
    log_min_duration_parse: Milliseconds | None = setting(None, "warn when parsing one query took longer", unit="ms")
    log_query_sample_length: Count = setting(1000, "how much of a query's text appears in the log", unit="characters")
    log_format: LogFormat = setting(LogFormat.TEXT, "encoding of the log", live=_RESTART, lax=True)
    log_level: str = setting("info", "least severe message that is logged", live=_RESTART, variable="RUST_LOG")
    log_connections: bool = setting(True, "log logins of clients")
    log_disconnections: bool = setting(True, "log logouts of clients")
    log_dedup_window: Milliseconds = setting(0, "time in which equal lines collapse; 0 = off", unit="ms", live=_RESTART)
    log_dedup_threshold: Count = setting(0, "equal lines shown before they collapse; 0 = off", live=_RESTART)
    stats_period: Milliseconds = setting(15_000, "how often the averages of SHOW STATS are computed", unit="ms")
    dns_ttl: Milliseconds | None = setting(None, "refresh interval of the DNS cache; absent = no cache", unit="ms")
    dry_run: bool = setting(False, "compute and count routes, but route as if unsharded", settable="dry_run")
    healthcheck_port: Port | None = setting(None, "HTTP port that answers 200 or 502", live=_RESTART)
    openmetrics_host: str = setting("0.0.0.0", "address of the metrics listener", live=_RESTART)
    openmetrics_port: Port | None = setting(None, "HTTP port that serves metrics", live=_RESTART)
    openmetrics_namespace: str | None = setting(None, "text in front of every metric name, nothing added")

    # -- pools, timeouts, connections
    default_pool_size: Count = setting(
        10, "most server connections per user, database and target", live=_POOLS, settable="default_pool_size"
    )
    min_pool_size: Count = setting(1, "connections kept open while idle", live=_POOLS)
    pooler_mode: PoolerMode = setting(
        PoolerMode.TRANSACTION, "how long a client keeps a server connection", live=_POOLS, lax=True
    )
    connect_timeout: Milliseconds = setting(
        5000, "one attempt to connect to a server", unit="ms", settable="connect_timeout"
    )
    connect_attempts: Count = setting(1, "attempts before a connection counts as failed")
    connect_attempt_delay: Milliseconds = setting(0, "wait between attempts", unit="ms")
    checkout_timeout: Milliseconds = setting(
        5000, "longest wait for a free server connection", unit="ms", settable="checkout_timeout"
    )
    query_timeout: Milliseconds = setting(
        INFINITE, "longest time from sending a query to the end of its answer", unit="ms", settable="query_timeout"
    )
    rollback_timeout: Milliseconds = setting(5000, "longest automatic ROLLBACK of an abandoned transaction", unit="ms")
    idle_timeout: Milliseconds = setting(
        60_000, "idle server connections above min_pool_size close after this", unit="ms", live=_POOLS
    )
    server_lifetime: Milliseconds = setting(86_400_000, "greatest age of a server connection", unit="ms", live=_POOLS)
    server_lifetime_jitter: Milliseconds = setting(
        0, "random spread of server_lifetime per connection, so that not all close at once", unit="ms", live=_POOLS
    )
    client_idle_timeout: Milliseconds = setting(INFINITE, "idle clients are disconnected after this", unit="ms")
    client_idle_in_transaction_timeout: Milliseconds = setting(
        INFINITE,
        "clients idle inside a transaction are disconnected after this",
        unit="ms",
        settable="client_idle_in_transaction_timeout",
    )
    client_login_timeout: Milliseconds = setting(
        60_000, "startup and authentication must end within this", unit="ms", variable="PGDOG_CLIENT_LOG_TIMEOUT"
    )
    connection_recovery: Recovery = setting(
        Recovery.RECOVER,
        "a server connection whose client vanished in a transaction: drain and roll back, only roll back, or close",
        settable="connection_recovery",
        lax=True,
    )
    client_connection_recovery: Recovery = setting(
        Recovery.DROP,
        "a client for whom no server connection could be had: keep it, or disconnect it",
        settable="client_connection_recovery",
        lax=True,
    )
    query_size_limit: Bytes | None = setting(None, "largest query", unit="bytes")
    query_size_limit_action: SizeAction = setting(SizeAction.WARN, "what happens to a larger query", lax=True)

    # -- health checks, bans, replica lag
    healthcheck_interval: Milliseconds = setting(
        30_000, "a connection unchecked for longer is checked before use", unit="ms", settable="healthcheck_interval"
    )
    idle_healthcheck_interval: Milliseconds = setting(
        30_000, "background check of an idle connection; 0 = off", unit="ms", settable="idle_healthcheck_interval"
    )
    idle_healthcheck_delay: Milliseconds = setting(
        5000, "wait after a pool starts before its first background check", unit="ms", settable="idle_healthcheck_delay"
    )
    healthcheck_timeout: Milliseconds = setting(5000, "longest health check", unit="ms")
    require_healthcheck_on_discovery: bool = setting(False, "a new target gets traffic only after a good check")
    ban_timeout: Milliseconds = setting(
        300_000, "how long a failed replica is left out; 0 = never banned", unit="ms", settable="ban_timeout"
    )
    ban_replica_lag: Milliseconds = setting(INFINITE, "replicas that lag longer are banned", unit="ms")
    ban_replica_lag_bytes: Bytes = setting(INFINITE, "replicas that lag more WAL are banned", unit="bytes")
    lsn_check_interval: Milliseconds = setting(5000, "period of replication status queries", unit="ms")
    lsn_check_timeout: Milliseconds = setting(5000, "longest replication status query", unit="ms")
    lsn_check_delay: Milliseconds = setting(
        INFINITE, "wait before the first status query; without a value there is none", unit="ms"
    )

    # -- load balancing and routing
    load_balancing_strategy: Balancing = setting(
        Balancing.RANDOM, "how a replica is chosen", settable="load_balancing_strategy", lax=True
    )
    read_write_strategy: ReadWriteStrategy = setting(
        ReadWriteStrategy.CONSERVATIVE,
        "explicit transactions go to the primary, or where their first statement says",
        settable="read_write_strategy",
        lax=True,
    )
    read_write_split: ReadWriteSplit = setting(
        ReadWriteSplit.INCLUDE_PRIMARY, "may reads use the primary", settable="read_write_split", lax=True
    )
    query_parser: QueryParser = setting(QueryParser.AUTO, "how much SQL is parsed", settable="query_parser", lax=True)
    query_parser_enabled: bool = setting(False, "old form of query_parser = on")
    query_parser_engine: ParserEngine = setting(ParserEngine.PROTOBUF, "interface of PgDog's parser", lax=True)
    regex_parser_limit: Bytes = setting(
        1000, "how much of a query a keyword scan reads", unit="bytes", variable=NO_TWIN
    )
    cross_shard_disabled: bool = setting(
        False, "refuse statements that touch more than one shard", settable="cross_shard_disabled"
    )
    expanded_explain: bool = setting(False, "EXPLAIN also shows shards, road and reasons")
    system_catalogs: SystemCatalogs = setting(
        SystemCatalogs.OMNISHARDED_STICKY, "which shard answers for pg_catalog", lax=True
    )
    omnisharded_sticky: bool = setting(False, "one client always reads omnisharded tables on one shard")
    load_schema: LoadSchema = setting(LoadSchema.AUTO, "read the catalogue of tables and columns at start", lax=True)
    reload_schema_on_ddl: bool = setting(
        True,
        "read the catalogue again after DDL",
        variable="PGDOG_SCHEMA_RELOAD_ON_DDL",
        settable="reload_schema_on_ddl",
    )
    canonicalize_type_information: bool = setting(
        False, "show shard 0's OIDs of user types for all shards", settable="canonicalize_type_information"
    )
    sharding_lookup_cache_size: Bytes = setting(67_108_864, "cache of lookup_query answers", unit="bytes")
    sharding_lookup_timeout: Milliseconds = setting(5000, "longest lookup query", unit="ms")
    query_cache_limit: Count = setting(1000, "statement shapes kept parsed, least recently used go first")
    pub_sub_channel_size: Count = setting(0, "messages buffered per LISTEN channel; 0 = LISTEN is not shared")

    # -- prepared statements
    prepared_statements: PreparedStatements = setting(
        PreparedStatements.EXTENDED,
        "which statements survive a change of server",
        settable="prepared_statements",
        lax=True,
    )
    prepared_statements_limit: Count = setting(
        INFINITE, "most statements per server connection and unused in the cache", settable="prepared_statements_limit"
    )
    prepared_statements_ttl: Milliseconds | None = setting(
        None, "statements on a server older than this are prepared again", unit="ms"
    )
    prepared_statements_ttl_jitter: Milliseconds = setting(30_000, "random spread of the ttl", unit="ms")

    # -- authentication and TLS
    auth_type: AuthType = setting(AuthType.SCRAM, "how clients authenticate", settable="auth_type", lax=True)
    passthrough_auth: Passthrough = setting(
        Passthrough.DISABLED,
        "ask clients for their password and use it for the server",
        settable="passthrough_auth",
        lax=True,
    )
    tls_certificate: str | None = setting(None, "certificate shown to clients, PEM file")
    tls_private_key: str | None = setting(None, "its key, PEM file")
    tls_client_required: bool = setting(False, "refuse clients without TLS", settable="tls_client_required")
    tls_client_ca_certificate: str | None = setting(None, "CA of client certificates, PEM file; asks for them")
    tls_verify: TlsVerify = setting(TlsVerify.PREFER, "TLS towards servers", live=_POOLS, lax=True)
    tls_server_ca_certificate: str | None = setting(None, "CA of server certificates, PEM file", live=_POOLS)
    tls_server_certificate: str | None = setting(None, "certificate shown to servers, PEM file", live=_POOLS)
    tls_server_private_key: str | None = setting(None, "its key, PEM file", live=_POOLS)

    # -- mirroring
    mirror_queue: Count = setting(128, "transactions queued per client for a mirror")
    mirror_exposure: Fraction = setting(1.0, "share of transactions that are mirrored")

    # -- two-phase commit
    two_phase_commit: bool = setting(
        False, "COMMIT over several shards becomes PREPARE and COMMIT PREPARED", settable="two_phase_commit"
    )
    two_phase_commit_auto: bool | None = setting(
        None,
        "also for single statements; absent = whenever the shards allow prepared transactions",
        settable="two_phase_commit_auto",
    )
    two_phase_commit_wal_dir: str | None = setting(
        None, "folder of the commit log; absent = in the state folder", live=_RESTART
    )
    two_phase_commit_wal_segment_size: Bytes = setting(16_777_216, "size of one log file", unit="bytes", live=_RESTART)
    two_phase_commit_wal_fsync_interval: Milliseconds = setting(
        0, "delay that groups fsyncs; 0 = at once", unit="ms", live=_RESTART
    )
    two_phase_commit_wal_checkpoint_interval: Milliseconds = setting(
        15_000, "how often finished transactions leave the log", unit="ms", live=_RESTART
    )

    # -- unique ids
    unique_id_function: UniqueId = setting(UniqueId.STANDARD, "layout of generated ids", lax=True)
    unique_id_min: Count = setting(0, "added to ids, so that new ones exceed old ones")

    # -- resharding and cutover
    resharding_copy_format: CopyFormat = setting(CopyFormat.BINARY, "COPY format of data sync", lax=True)
    resharding_parallel_copies: Count = setting(1, "tables copied at a time per replica")
    resharding_copy_retry_max_attempts: Count = setting(5, "retries of one table")
    resharding_copy_retry_min_delay: Milliseconds = setting(1000, "first delay, doubles up to 32 times", unit="ms")
    resharding_replication_retry_max_attempts: Count = setting(5, "retries of the stream; 0 = without end")
    resharding_replication_retry_min_delay: Milliseconds = setting(1000, "delay between retries", unit="ms")
    cutover_traffic_stop_threshold: Bytes = setting(1_000_000, "traffic pauses when the lag is smaller", unit="bytes")
    cutover_replication_lag_threshold: Bytes = setting(0, "cutover ends when the lag is this small", unit="bytes")
    cutover_last_transaction_delay: Milliseconds = setting(1000, "or without a transaction for so long", unit="ms")
    cutover_timeout: Milliseconds = setting(30_000, "longest pause of a cutover", unit="ms")
    cutover_timeout_action: CutoverAction = setting(CutoverAction.ABORT, "what happens at that limit", lax=True)
    cutover_save_config: bool = setting(False, "write the swapped configuration to disk")

    # -- ours
    lanes: Lanes = setting(
        "auto",
        "connections on which autocommit reads of many clients travel one behind the other: auto, off or a number",
        live=_POOLS,
        ours=True,
    )
    coalesce: bool = setting(
        True,
        "identical reads that board a lane in the same moment are sent once and answered to each of their clients",
        live=_POOLS,
        ours=True,
    )
    max_client_conn: Count = setting(10_000, "most clients of this node; more are refused (53300)", ours=True)
    unix_socket_dir: str | None = setting(
        None, "folder for a UNIX socket named like PostgreSQL's; absent = none", live=_RESTART, ours=True
    )
    exchange_max_bytes: Bytes = setting(
        268_435_456,
        "most rows fetched to finish one statement over several shards on one of them (53400)",
        unit="bytes",
        ours=True,
    )
