"""What applies in the end: users over databases over general, and whose credentials a server sees.

One place for every precedence rule of the files; nobody else looks at two levels at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from node.config.schema import Config, Database, MappingEntry, ShardedMapping, ShardedTable, User
from node.config.schema_databases import PoolOverrides
from node.config.setting import Secret
from node.config.words import PoolerMode, PreparedStatements, Role

# PgDog's order of kinds inside a mapping: list, then range, then default
_KINDS = {"list": 0, "range": 1, "default": 2}


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Everything one pool (user, database, target) needs to know. Times in ms; INFINITE means never."""

    pool_size: int
    min_pool_size: int
    pooler_mode: PoolerMode
    prepared_statements: PreparedStatements
    prepared_statements_limit: int
    connect_timeout: int
    checkout_timeout: int
    query_timeout: int
    rollback_timeout: int
    idle_timeout: int
    server_lifetime: int
    server_lifetime_jitter: int
    healthcheck_interval: int
    healthcheck_timeout: int
    idle_healthcheck_interval: int
    idle_healthcheck_delay: int
    ban_timeout: int
    statement_timeout: int | None
    lock_timeout: int | None
    read_only: bool | None
    lanes: int | str
    lb_weight: int


@dataclass(frozen=True, slots=True)
class ServerCredentials:
    """Who we are to a server. Passwords are tried in order: during a rotation either may be right."""

    user: str
    passwords: tuple[Secret, ...] = field(repr=False)


def pool_settings(config: Config, user: User, entry: Database) -> PoolSettings:
    """Effective settings of the pool of `user` on the target `entry`."""
    general = config.general
    levels: tuple[PoolOverrides, ...] = (user, entry)
    role = "replica" if entry.role is Role.REPLICA else "primary"  # auto: the settings of the greater responsibility

    def number(name: str, default: int, *, by_role: bool = False) -> int:
        for level in levels:
            names = (f"{name}_{role}", name) if by_role else (name,)
            for one in names:
                value: int | None = getattr(level, one)
                if value is not None:
                    return value
        return default

    size = number("pool_size", general.default_pool_size, by_role=True)
    lifetime = number("server_lifetime", general.server_lifetime)
    mode = pooler_mode(config, user, entry.name)
    return PoolSettings(
        pool_size=size,
        min_pool_size=min(number("min_pool_size", general.min_pool_size, by_role=True), size),
        pooler_mode=mode,
        # a server connection that belongs to one client needs no renaming; PgDog forces this too
        prepared_statements=(
            PreparedStatements.DISABLED if mode is PoolerMode.SESSION else general.prepared_statements
        ),
        prepared_statements_limit=general.prepared_statements_limit,
        connect_timeout=general.connect_timeout,
        checkout_timeout=general.checkout_timeout,
        query_timeout=general.query_timeout,
        rollback_timeout=general.rollback_timeout,
        idle_timeout=number("idle_timeout", general.idle_timeout, by_role=True),
        server_lifetime=lifetime,
        server_lifetime_jitter=min(number("server_lifetime_jitter", general.server_lifetime_jitter), lifetime),
        healthcheck_interval=general.healthcheck_interval,
        healthcheck_timeout=general.healthcheck_timeout,
        idle_healthcheck_interval=general.idle_healthcheck_interval,
        idle_healthcheck_delay=general.idle_healthcheck_delay,
        ban_timeout=general.ban_timeout,
        statement_timeout=_optional(levels, "statement_timeout"),
        lock_timeout=_optional(levels, "lock_timeout"),
        read_only=user.read_only if user.read_only is not None else entry.read_only,
        lanes=general.lanes if entry.lanes is None else entry.lanes,
        lb_weight=entry.lb_weight,
    )


def _optional(levels: tuple[PoolOverrides, ...], name: str) -> int | None:
    for level in levels:
        value: int | None = getattr(level, name)
        if value is not None:
            return value
    return None


def pooler_mode(config: Config, user: User, database: str) -> PoolerMode:
    """One mode for all targets of a database: a session cannot be pooled on one shard and not on another."""
    if user.pooler_mode is not None:
        return user.pooler_mode
    first = next(iter(config.targets(database)), None)
    return (first.pooler_mode if first else None) or config.general.pooler_mode


def server_credentials(user: User, entry: Database) -> ServerCredentials:
    """`[[databases]]` user/password > `[[users]]` server_user/server_password > `[[users]]` name/password.

    Decided per entry and per key: one entry of a database may carry its own credentials and the next one none.
    """
    name = entry.user or user.server_user or user.name
    if entry.password is not None:
        return ServerCredentials(name, (entry.password,))
    if user.server_password is not None:
        return ServerCredentials(name, (user.server_password,))
    return ServerCredentials(name, user.accepted)


def databases_of(config: Config, user: User) -> tuple[str, ...]:
    """Logical databases a user may enter: all_databases > databases > database; unknown names are left out."""
    known = config.entries
    if user.all_databases:
        return tuple(known)
    named = user.databases or ((user.database,) if user.database is not None else ())
    return tuple(name for name in dict.fromkeys(named) if name in known)


def find_user(config: Config, name: str, database: str) -> User | None:
    """The entry that lets `name` into `database`; of several the first."""
    for user in config.users_by_name.get(name, ()):
        if database in databases_of(config, user):
            return user
    return None


@dataclass(frozen=True, slots=True)
class UserRules:
    """Settings of `[general]` that an entry of `[[users]]` may change."""

    cross_shard_disabled: bool
    two_phase_commit: bool
    two_phase_commit_auto: bool | None


def user_rules(config: Config, user: User) -> UserRules:
    general = config.general
    return UserRules(
        cross_shard_disabled=_over(user.cross_shard_disabled, general.cross_shard_disabled),
        two_phase_commit=_over(user.two_phase_commit, general.two_phase_commit),
        two_phase_commit_auto=(
            user.two_phase_commit_auto if user.two_phase_commit_auto is not None else general.two_phase_commit_auto
        ),
    )


def _over(value: bool | None, default: bool) -> bool:
    return default if value is None else value


def same_rule(mapping: ShardedMapping, rule: ShardedTable) -> bool:
    """Does an old-style mapping belong to this sharded table?"""
    return (
        mapping.database == rule.database
        and mapping.column == rule.column
        and mapping.table == rule.name
        and mapping.schema_name in (None, rule.schema_name)
    )


def rules(config: Config, database: str | None = None) -> Iterator[tuple[ShardedTable, tuple[MappingEntry, ...]]]:
    """Sharded tables with their whole mapping, old-style entries joined, in the order they are tried."""
    for rule in config.sharded_tables:
        if database is not None and rule.database != database:
            continue
        joined = [
            MappingEntry(shard=one.shard, values=one.values, start=one.start, end=one.end)
            for one in config.sharded_mappings
            if same_rule(one, rule)
        ]
        entries = [*(rule.mapping or ()), *joined]
        yield rule, tuple(sorted(entries, key=lambda entry: _KINDS[entry.kind]))
