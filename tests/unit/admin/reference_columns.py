"""Columns of SHOW commands, copied as data from the reference (PgDog 0.1.54) and from the interface."""

from __future__ import annotations

_STATS = (  # noqa: SIM905
    "xact_count xact_2pc_count query_count server_assignment_count received sent xact_time idle_xact_time query_time"
    " wait_time server_parse_count bind_count close_count errors cleaned rollbacks connect_time connect_count reads"
    " writes auth_attempts rows_inserted rows_updated rows_deleted"
).split()
# ours, behind PgDog's
_LANES = (  # noqa: SIM905
    "lane_units lane_shared lane_coalesced lane_heavy lane_full lane_slow lane_resent_slow lane_resent_lost"
    " lane_cancelled lane_left lane_unread"
).split()
_POOL = "database:text, user:text, addr:text, port:numeric, shard:numeric, role:text"
_MEMORY = ", ".join(
    f"{name}:numeric"
    for name in (  # noqa: SIM905
        "remote_pid buffer_reallocs buffer_reclaims buffer_bytes_used buffer_bytes_alloc prepared_statements_bytes"
        " net_buffer_bytes total_bytes"
    ).split()
)

COLUMNS = {
    "CLIENTS": "id:bigint, user:text, database:text, addr:text, port:numeric, state:text, replication:text,"
    " connect_time:text, last_request:text, queries:numeric, transactions:numeric, transactions_2pc:numeric,"
    " wait_time:numeric, query_time:numeric, transaction_time:numeric, bytes_received:numeric, bytes_sent:numeric,"
    " errors:numeric, application_name:text, locked:bool, prepared_statements:numeric",
    "SERVERS": "pool_id:bigint, database:text, user:text, addr:text, port:numeric, state:text, connect_time:text,"
    " request_time:text, remote_pid:numeric, client_id:bigint, transactions:numeric, queries:numeric,"
    " rollbacks:numeric, prepared_statements:numeric, healthchecks:numeric, errors:numeric, bytes_received:numeric,"
    " bytes_sent:numeric, last_sent:text, last_received:text, age:numeric, application_name:text",
    "POOLS": f"id:bigint, {_POOL}, cl_waiting:numeric, sv_idle:numeric, sv_active:numeric, sv_idle_xact:numeric,"
    " sv_total:numeric, maxwait:numeric, maxwait_us:numeric, pool_mode:text, paused:bool, banned:bool, healthy:bool,"
    " errors:numeric, re_synced:numeric, out_of_sync:numeric, force_closed:numeric, online:bool, schema_admin:bool"
    + "".join(f", {name}:numeric" for name in ("lanes", "lanes_allowed", "lane_riders", *_LANES)),
    "BANS": f"id:bigint, {_POOL}, ban_reason:text, ban_time_left:numeric",
    "CONFIG": "name:text, value:text",
    "STATS": ", ".join(
        [
            _POOL,
            *(f"{prefix}_{name}:numeric" for prefix in ("total", "avg") for name in _STATS),
            *(f"total_{name}:numeric" for name in _LANES),
        ]
    ),
    "PEERS": "addr:text, last_seen:text, clients:numeric, node:text, state:text, incarnation:bigint, version:bigint,"
    " digest:text, protocol:text",
    "QUERY_CACHE": "query:text, hits:numeric, direct:numeric, multi:numeric",
    "PREPARED": "name:text, statement:text, rewrite:text, used_by:numeric, memory_used:numeric",
    "TRANSACTIONS": "database:text, user:text, transaction_name:text, transaction_state:text",
    "MIRRORS": "database:text, user:text, total_count:numeric, mirrored_count:numeric, dropped_count:numeric,"
    " error_count:numeric, queue_length:numeric",
    "VERSION": "version:text",
    "INSTANCE_ID": "instance_id:text",
    "LISTS": "databases:numeric, users:numeric, pools:numeric, used_clients:numeric, used_clients:numeric,"
    " free_servers:numeric, used_servers:numeric",
    "LISTENERS": "database:text, user:text, shard:numeric, channel:text, listeners:numeric, received:numeric,"
    " dropped:numeric",
    "REPLICATION": f"id:bigint, {_POOL}, replica_lag:text, pg_lsn:text, lsn_age:text, pg_is_in_recovery:text",
    "REPLICATION_SLOTS": "host:text, port:bigint, database_name:text, name:text, lsn:text, lag:text, lag_bytes:bigint,"
    " copy_data:bool, last_transaction:text, last_transaction_ms:bigint",
    "SCHEMA_SYNC": "database:text, user:text, shard:bigint, kind:text, sync_state:text, started_at:text, elapsed:text,"
    " elapsed_ms:bigint, table_schema:text, table_name:text, sql:text",
    "TABLE_COPIES": "schema:text, table:text, status:text, rows:bigint, rows_human:text, bytes:bigint,"
    " bytes_human:text, bytes_per_sec:bigint, bytes_per_sec_human:text, elapsed:text, elapsed_ms:bigint, sql:text",
    "TASKS": "id:bigint, scope:text, type:text, status:text, inner_status:text, started_at:text, updated_at:text,"
    " elapsed:text, elapsed_ms:bigint",
    "SERVER MEMORY": f"pool_id:bigint, database:text, user:text, addr:text, port:numeric, {_MEMORY}",
    "CLIENT MEMORY": "client_id:bigint, database:text, user:text, addr:text, port:numeric, "
    + _MEMORY.removeprefix("remote_pid:numeric, "),
    "ROLLOUT": "id:bigint, version:bigint, phase:text, coordinator:text, started:text, node:text, state:text,"
    " paused_ms:numeric, drained_ms:numeric, reason:text",
}

TAGS = {
    "SERVERS": "SHOW",
    "CONFIG": "SHOW",
    "QUERY_CACHE": "SHOW QUERY CACHE",
    "PREPARED": "SHOW PREPARED STATEMENTS",
}
"""Where the CommandComplete tag is not `SHOW` and the name."""
