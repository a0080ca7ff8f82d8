"""Keys that are read but whose feature does not exist yet.

A key in here is accepted with one warning, so that nobody believes it works. `table`, `table.key`, or
`table.key=value` for one value of a key. Building a feature ends with deleting its line here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from node.config.positions import Path
from node.config.schema import ENTERPRISE, TABLES, Config, brackets, file_key
from node.config.setting import Table

_MIRROR = "mirroring is not built yet"
_LAG = "replica lag is not measured yet"
_RESHARD = "resharding is not built yet"
_VAULT = "Vault is not built yet"
_PASSTHROUGH = "passthrough authentication is not built yet"
_MULTICAST = "members are found by [discovery] instead"
_DEDUP = "log lines are not collapsed"
_VECTOR = "vector sharding is not built yet"
_LOOKUP = "lookup queries are not built yet"
_WAL = "the commit log is one file in the state folder"
_REPLICATION = "the replication protocol is not built yet"

NOT_BUILT: dict[str, str] = {
    "general.workers": "it counts PgDog's threads; members on one host are started by --workers",
    "general.shutdown_termination_timeout": "running queries are not cancelled at shutdown yet",
    "general.broadcast_address": _MULTICAST,
    "general.broadcast_port": _MULTICAST,
    "general.query_log": "queries are not logged yet",
    "general.query_log_stdout": "queries are not logged yet",
    "general.log_min_duration_parse": "slow parses are not logged yet",
    "general.log_query_sample_length": "queries are not logged yet",
    "general.log_format=json_flattened": "json is written instead",
    "general.log_dedup_window": _DEDUP,
    "general.log_dedup_threshold": _DEDUP,
    "general.dns_ttl": "names are resolved at each connection attempt",
    "general.dry_run": "dry runs are not built yet; see pgmurmur route",
    "general.query_size_limit": "the built-in limit applies",
    "general.query_size_limit_action": "the built-in limit applies",
    "general.require_healthcheck_on_discovery": "new targets get traffic at once",
    "general.ban_replica_lag": _LAG,
    "general.ban_replica_lag_bytes": _LAG,
    "general.lsn_check_interval": _LAG,
    "general.lsn_check_timeout": _LAG,
    "general.lsn_check_delay": _LAG,
    "general.query_parser": "statements are always parsed, by shape",
    "general.query_parser_enabled": "statements are always parsed, by shape",
    "general.query_parser_engine": "statements are parsed by pglast",
    "general.regex_parser_limit": "no keyword scan is made",
    "general.system_catalogs": "catalogs are read on one shard",
    "general.omnisharded_sticky": "reads of omnisharded tables go to any shard",
    "general.load_schema": "the catalogue is read when a database has several shards",
    "general.reload_schema_on_ddl": "the catalogue is always read again after DDL",
    "general.canonicalize_type_information": "types with different OIDs on the shards are refused",
    "general.sharding_lookup_cache_size": _LOOKUP,
    "general.sharding_lookup_timeout": _LOOKUP,
    "general.pub_sub_channel_size": "LISTEN keeps its server connection",
    "general.prepared_statements_ttl": "statements do not age",
    "general.prepared_statements_ttl_jitter": "statements do not age",
    "general.passthrough_auth": _PASSTHROUGH,
    "general.mirror_queue": _MIRROR,
    "general.mirror_exposure": _MIRROR,
    "general.two_phase_commit_wal_dir": _WAL,
    "general.two_phase_commit_wal_segment_size": _WAL,
    "general.two_phase_commit_wal_fsync_interval": _WAL,
    "general.two_phase_commit_wal_checkpoint_interval": _WAL,
    "general.exchange_max_bytes": "statements that need an exchange are refused",
    "general.unique_id_function": "unique ids are not built yet",
    "general.unique_id_min": "unique ids are not built yet",
    "general.resharding_copy_format": _RESHARD,
    "general.resharding_parallel_copies": _RESHARD,
    "general.resharding_copy_retry_max_attempts": _RESHARD,
    "general.resharding_copy_retry_min_delay": _RESHARD,
    "general.resharding_replication_retry_max_attempts": _RESHARD,
    "general.resharding_replication_retry_min_delay": _RESHARD,
    "general.cutover_traffic_stop_threshold": _RESHARD,
    "general.cutover_replication_lag_threshold": _RESHARD,
    "general.cutover_last_transaction_delay": _RESHARD,
    "general.cutover_timeout": _RESHARD,
    "general.cutover_timeout_action": _RESHARD,
    "general.cutover_save_config": _RESHARD,
    "databases.role=auto": "the role of a server is not detected yet; it counts as primary",
    "databases.resharding_only": _RESHARD,
    "sharded_tables.data_type=vector": _VECTOR,
    "sharded_tables.centroids": _VECTOR,
    "sharded_tables.centroids_path": _VECTOR,
    "sharded_tables.centroid_probes": _VECTOR,
    "sharded_tables.lookup_query": _LOOKUP,
    "sharded_tables.lookup_result": _LOOKUP,
    "omnisharded_tables.sticky": "reads of omnisharded tables go to any shard",
    "rewrite.enabled": "the modes act by themselves",
    "rewrite.shard_key=rewrite": "an UPDATE of the key column is refused: rows are not moved yet",
    "rewrite.split_inserts": "rows always go to their own shard",
    "rewrite.primary_key": "primary keys are not generated yet",
    "sync.lease": 'isolation = "pause" is not built yet',
    "memory": "buffers have their own sizes",
    "multi_tenant": "tenants are not checked yet",
    "plugins": "plugins are not built",
    "replica_lag": _LAG,
    "replication": _RESHARD,
    "mirroring": _MIRROR,
    "query_parsers": "statements are always parsed, by shape",
    "otel": "metrics are served at openmetrics_port, not pushed",
    "vault": _VAULT,
    "users.max_client_conn": "only [general] max_client_conn limits clients",
    "users.server_auth": "servers are logged in to by password",
    "users.server_iam_region": "servers are logged in to by password",
    "users.server_vault_path": _VAULT,
    "users.vault_path": _VAULT,
    "users.vault_refresh_percent": _VAULT,
    "users.replication_mode": _REPLICATION,
    "users.replication_sharding": _REPLICATION,
    "users.schema_admin": "the catalogue is read as the pool's user",
}


def unbuilt(config: Config, written: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """One finding per listed key that is written and changes something; a default that is written out does not."""
    for name in ENTERPRISE:
        if name in written:
            yield (name,), f"[{name}] belongs to PgDog's enterprise edition and is ignored"
    for key, reason in NOT_BUILT.items():
        path = _first_use(config, written, key)
        if path is not None:
            yield path, f"{_called(key)} is accepted without effect: {reason}"


def _called(key: str) -> str:
    """`"dns_ttl" in [general]`, `role = "auto" in [[databases]]`, `[otel]`."""
    table, _, rest = key.partition(".")
    if not rest:
        return brackets(table)
    field, _, value = rest.partition("=")
    name = file_key(table, field)
    return f'{name} = "{value}" in {brackets(table)}' if value else f'"{name}" in {brackets(table)}'


def _first_use(config: Config, written: Mapping[str, Any], key: str) -> Path | None:
    table, _, rest = key.partition(".")
    if table not in written:
        return None
    if not rest:
        return (table,)
    name, _, value = rest.partition("=")
    parsed = getattr(config, table)
    entries: list[tuple[Path, Table]] = (
        [((table, index), entry) for index, entry in enumerate(parsed)]
        if isinstance(parsed, tuple)
        else [((table,), parsed)]
    )
    default = TABLES[table].model_fields[name].default
    for path, entry in entries:
        found = getattr(entry, name)
        if name in entry.model_fields_set and (found == value if value else found != default):
            return (*path, file_key(table, name))
    return None
