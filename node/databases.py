"""Every (user, database) pair a node serves, rebuilt with each Snapshot; pools that did not change live on.

A pool is kept when its user, database, shard, role and target are the same: then only its settings are renewed.
Gates and layouts belong to a logical database, whoever uses it, and survive snapshots too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from node.config.resolve import databases_of, find_user, pool_settings, pooler_mode, server_credentials, user_rules
from node.config.schema import Config, User
from node.config.schema_databases import Database as Entry
from node.config.setting import INFINITE
from node.database import Database, Layout
from node.errors import ClientFault
from node.gate import Gate
from node.pool.balancer import Balancer
from node.pool.pool import Pool, PoolSettings, Surroundings
from node.routing.catalog import Catalog
from node.server.connect import Target
from node.snapshot import Snapshot
from node.tcp import TcpOptions
from node.tls import ClientTls

log = logging.getLogger("pgmurmur.pool")

PoolKey = tuple[str, str, int, str, str, int, str, str, tuple[str, ...], int | None, int | None, bool]


def seconds(milliseconds: int) -> float:
    return float("inf") if milliseconds >= INFINITE else milliseconds / 1000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is to its servers."""

    application_name: str


class Databases:
    def __init__(self, around: Surroundings, identity: Identity, random: Random, first: Config) -> None:
        """`first` counts for logins until a snapshot is applied."""
        self._first = first
        self._around = around
        self._identity = identity
        self._random = random
        self.epoch = 0
        self.snapshot: Snapshot | None = None
        self.tls: ClientTls | None = None
        self.by_user: dict[tuple[str, str], Database] = {}
        self.gates: dict[str, Gate] = {}
        self.layouts: dict[str, Layout] = {}
        self._pools: dict[PoolKey, Pool] = {}
        self.on_new_pool: Callable[[Pool], None] = lambda pool: None

    @property
    def config(self) -> Config:
        return self.snapshot.config if self.snapshot is not None else self._first

    @property
    def pools(self) -> list[Pool]:
        return list(self._pools.values())

    def find(self, user: str, database: str) -> Database:
        """Raises ClientFault 3D000 when a configuration change has taken it away."""
        found = self.by_user.get((user, database))
        if found is None:
            raise ClientFault(
                f'database "{database}" does not exist for user "{user}"',
                sqlstate="3D000",
                hint="the configuration has changed; reconnect",
                severity="FATAL",
            )
        return found

    def gate(self, database: str) -> Gate:
        gate = self.gates.get(database)
        if gate is None:
            gate = self.gates[database] = Gate(database)
        return gate

    def apply(self, snapshot: Snapshot, tls: ClientTls | None) -> None:
        """Makes `snapshot` the one that new transactions see. Pools that are not in it any more are closed."""
        config = snapshot.config
        before = self._pools
        self._pools = {}
        self.epoch += 1
        previous = self.snapshot
        self.snapshot = snapshot
        self.tls = tls
        built: dict[tuple[str, str], Database] = {}
        for user in config.users:
            for name in databases_of(config, user):
                if (user.name, name) in built or find_user(config, user.name, name) is not user:
                    continue
                built[(user.name, name)] = self._database(snapshot, user, name, before, tls)
        self.by_user = built
        for name in config.database_names():
            if previous is not None and previous.routing_digest(name) != snapshot.routing_digest(name):
                self.layouts[name].loaded = False
        for key, pool in before.items():
            if key not in self._pools:
                pool.close()

    def _database(
        self, snapshot: Snapshot, user: User, name: str, before: dict[PoolKey, Pool], tls: ClientTls | None
    ) -> Database:
        config, general = snapshot.config, snapshot.config.general
        balancers = []
        for shard in range(config.shards(name)):
            entries = [e for e in config.targets(name) if e.shard == shard and not e.resharding_only]
            primary = [self._pool(config, user, e, before, tls) for e in entries if e.role.value != "replica"]
            replicas = [self._pool(config, user, e, before, tls) for e in entries if e.role.value == "replica"]
            balancers.append(
                Balancer(
                    primary[0] if primary else None,
                    replicas,
                    strategy=general.load_balancing_strategy.value,
                    split=general.read_write_split.value,
                    random=self._random,
                    weights=[e.lb_weight for e in entries if e.role.value == "replica"]
                    + [e.lb_weight for e in entries if e.role.value != "replica"][:1],
                )
            )
        rules = user_rules(config, user)
        if name not in self.layouts:
            self.layouts[name] = Layout(Catalog.EMPTY)
        return Database(
            name=name,
            user=user.name,
            epoch=self.epoch,
            mode=pooler_mode(config, user, name).value,
            balancers=tuple(balancers),
            topology=snapshot.topologies[name],
            gate=self.gate(name),
            layout=self.layouts[name],
            prepared_limit=max(1, general.prepared_statements_limit),
            prepared_level=general.prepared_statements.value,
            read_write_strategy=general.read_write_strategy.value,
            two_phase="auto",
            cross_shard_disabled=rules.cross_shard_disabled,
            expanded_explain=general.expanded_explain,
            query_timeout_s=seconds(general.query_timeout),
            idle_in_transaction_timeout_s=seconds(general.client_idle_in_transaction_timeout),
            client_idle_timeout_s=seconds(general.client_idle_timeout),
        )

    def _pool(
        self, config: Config, user: User, entry: Entry, before: dict[PoolKey, Pool], tls: ClientTls | None
    ) -> Pool:
        chosen = pool_settings(config, user, entry)
        credentials = server_credentials(user, entry)
        passwords = tuple(secret.get_secret_value() for secret in credentials.passwords)
        role = "replica" if entry.role.value == "replica" else "primary"
        read_only = bool(chosen.read_only)
        key: PoolKey = (
            user.name, entry.name, entry.shard, role, entry.host, entry.port, entry.database_name or entry.name,
            credentials.user, passwords, chosen.statement_timeout, chosen.lock_timeout, read_only,
        )  # fmt: skip
        settings = PoolSettings(
            size=max(1, chosen.pool_size),
            min_size=chosen.min_pool_size,
            mode=chosen.pooler_mode.value,
            connect_timeout_s=seconds(chosen.connect_timeout),
            connect_attempts=config.general.connect_attempts,
            connect_attempt_delay_s=seconds(config.general.connect_attempt_delay),
            checkout_timeout_s=seconds(chosen.checkout_timeout),
            rollback_timeout_s=seconds(chosen.rollback_timeout),
            idle_timeout_s=seconds(chosen.idle_timeout),
            lifetime_s=seconds(chosen.server_lifetime),
            lifetime_jitter_s=seconds(chosen.server_lifetime_jitter),
            healthcheck_interval_s=seconds(chosen.healthcheck_interval),
            idle_healthcheck_interval_s=seconds(chosen.idle_healthcheck_interval),
            idle_healthcheck_delay_s=seconds(chosen.idle_healthcheck_delay),
            healthcheck_timeout_s=seconds(chosen.healthcheck_timeout),
            ban_timeout_s=seconds(chosen.ban_timeout),
            prepared_limit=max(1, chosen.prepared_statements_limit),
            connection_recovery=config.general.connection_recovery.value,
        )
        pool = before.get(key) or self._pools.get(key)
        if pool is None:
            pool = Pool(
                self._target(config, user, entry, tls), settings, self._around, user=user.name, database=entry.name, shard=entry.shard, role=role
            )
            self.on_new_pool(pool)
        else:
            pool.settings = settings
            pool.core.size = settings.size
        self._pools[key] = pool
        return pool

    def _target(self, config: Config, user: User, entry: Entry, tls: ClientTls | None) -> Target:
        chosen = pool_settings(config, user, entry)
        credentials = server_credentials(user, entry)
        return Target(
            host=entry.host,
            port=entry.port,
            database=entry.database_name or entry.name,
            user=credentials.user,
            passwords=tuple(secret.get_secret_value() for secret in credentials.passwords),
            tls=tls,
            application_name=self._identity.application_name,
            statement_timeout_ms=chosen.statement_timeout,
            lock_timeout_ms=chosen.lock_timeout,
            read_only=bool(chosen.read_only),
            tcp=tcp_options(config),
        )

    def targets(self, config: Config) -> list[Target]:
        """Every server address with its login that this configuration would use."""
        return [
            self._target(config, user, entry, self.tls)
            for user in config.users
            for name in databases_of(config, user)
            for entry in config.targets(name)
        ]


def tcp_options(config: Config) -> TcpOptions:
    tcp = config.tcp
    return TcpOptions(
        keepalive=tcp.keepalive,
        time_s=tcp.time // 1000 if tcp.time is not None else None,
        interval_s=tcp.interval // 1000 if tcp.interval is not None else None,
        retries=tcp.retries,
        user_timeout_ms=tcp.user_timeout,
        congestion_control=tcp.congestion_control,
    )
