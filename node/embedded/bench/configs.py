"""The configuration files of the proxies that are compared: texts, and nothing else.

All of them hold the SCRAM verifier that PostgreSQL itself has, pool in transaction mode, and log no connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PREPARED_SINCE = (1, 21)
"""PgBouncer's first version with prepared statements in transaction mode."""

PREPARED_LIMIT = 200
"""Prepared statements per server connection: what PgBouncer 1.24 and later have as their default."""

BACKLOG = 4096
"""Connections that wait to be accepted: a storm of logins should meet the proxy, not SYN retries a second apart."""


@dataclass(frozen=True)
class Login:
    user: str
    password: str
    verifier: str
    """As in pg_authid.rolpassword."""


@dataclass(frozen=True)
class Shard:
    """One server behind one logical database."""

    database: str
    number: int
    host: str
    port: int


@dataclass(frozen=True)
class ShardedTable:
    database: str
    table: str
    column: str


@dataclass(frozen=True)
class Settings:
    """What the proxies have in common."""

    login: Login
    shards: Sequence[Shard]
    tables: Sequence[ShardedTable]
    pool_size: int
    clients_limit: int


def pgbouncer_userlist(login: Login) -> str:
    return f'"{login.user}" "{login.verifier}"\n'


def pgbouncer_ini(settings: Settings, port: int, pool_size: int, version: tuple[int, ...], users: Path) -> str:
    """What one would use in production: SCRAM on both sides with one verifier, transaction pooling, few log lines."""
    databases = "".join(
        f"{shard.database} = host={shard.host} port={shard.port}\n"
        for shard in settings.shards
        if shard.database not in {table.database for table in settings.tables}
    )
    prepared = f"max_prepared_statements = {PREPARED_LIMIT}\n" if version >= PREPARED_SINCE else ""
    return (
        f"[databases]\n{databases}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"listen_backlog = {BACKLOG}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
        f"pool_mode = transaction\nmax_client_conn = {settings.clients_limit}\ndefault_pool_size = {pool_size}\n"
        "ignore_startup_parameters = extra_float_digits\nlog_connections = 0\nlog_disconnections = 0\n" + prepared
    )


def pgdog_toml(settings: Settings, port: int) -> str:
    """PgDog's; everything that is not said has PgDog's default, its two threads among them."""
    return (
        f'[general]\nhost = "127.0.0.1"\nport = {port}\ndefault_pool_size = {settings.pool_size}\n'
        'pooler_mode = "transaction"\nlog_level = "warn"\nlog_connections = false\nlog_disconnections = false\n'
        + _databases(settings)
    )


def node_toml(settings: Settings, lanes: str | None) -> str:
    """Ours; `lanes` only when it is asked for. Where the node listens is said by its options."""
    shared = "" if lanes is None else f"lanes = {lanes if lanes.isdigit() else f'{chr(34)}{lanes}{chr(34)}'}\n"
    return (
        f'[general]\nhost = "127.0.0.1"\nport = 0\ndefault_pool_size = {settings.pool_size}\n'
        f"max_client_conn = {settings.clients_limit}\nlog_connections = false\nlog_disconnections = false\n"
        f"{shared}" + _databases(settings)
    )


def users_toml(settings: Settings) -> str:
    """For PgDog and for ours."""
    login = settings.login
    return "\n".join(
        f'[[users]]\nname = "{login.user}"\ndatabase = "{database}"\npassword_hash = "{login.verifier}"\n'
        f'server_password = "{login.password}"\n'
        for database in dict.fromkeys(shard.database for shard in settings.shards)
    )


def _databases(settings: Settings) -> str:
    databases = "".join(
        f'\n[[databases]]\nname = "{shard.database}"\nhost = "{shard.host}"\nport = {shard.port}\n'
        f"shard = {shard.number}\n"
        for shard in settings.shards
    )
    tables = "".join(
        f'\n[[sharded_tables]]\ndatabase = "{table.database}"\nname = "{table.table}"\ncolumn = "{table.column}"\n'
        'data_type = "bigint"\n'
        for table in settings.tables
    )
    return databases + tables
