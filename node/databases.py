"""Every (user, database) pair a node serves, rebuilt with each Snapshot; pools that did not change live on.

A pool is kept when its user, database, shard, role and target are the same: then only its settings are renewed.
Gates and layouts belong to a logical database, whoever uses it, and survive snapshots too.

A rollout's dry run makes a `Draft` of the new Snapshot: pools to servers that are not in use yet, and catalogs read
through them. `apply` finds both ready, so that the pause of a rollout waits for no connection and no catalog.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
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

PoolKey = tuple[str, str, int, str, Target]  # user, database, shard, role, and everything about the server


def seconds(milliseconds: int) -> float:
    return float("inf") if milliseconds >= INFINITE else milliseconds / 1000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is to its servers."""

    application_name: str


@dataclass(slots=True)
class Draft:
    """What a Snapshot makes of the databases; in force only when applied."""

    snapshot: Snapshot
    tls: ClientTls | None
    layouts: dict[str, Layout]
    pools: dict[PoolKey, Pool] = field(default_factory=dict)
    by_user: dict[tuple[str, str], Database] = field(default_factory=dict)

    def of(self, name: str) -> Database | None:
        """The database as one of its users sees it."""
        return next((database for database in self.by_user.values() if database.name == name), None)


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
        self._draft: Draft | None = None  # of a rollout that may be committed soon

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

    def stage(self, snapshot: Snapshot, tls: ClientTls | None) -> Draft:
        """Makes ready what `apply` of this Snapshot will need, and nothing of it seen. One draft is kept."""
        draft = self._draft
        if draft is not None and draft.snapshot.digest == snapshot.digest and draft.tls is tls:
            return draft
        self.unstage()
        draft = Draft(snapshot, tls, {name: Layout(Catalog.EMPTY) for name in snapshot.topologies})
        self._fill(draft, self._pools, renew=False)
        self._draft = draft
        return draft

    def unstage(self) -> None:
        """The draft is not going to be applied: its connections are closed."""
        draft, self._draft = self._draft, None
        if draft is not None:
            for key, pool in draft.pools.items():
                if key not in self._pools:
                    pool.close()

    def new_pools(self, draft: Draft) -> list[Pool]:
        """Pools of the draft to servers that are not in use now."""
        return [pool for key, pool in draft.pools.items() if key not in self._pools]

    def apply(self, snapshot: Snapshot, tls: ClientTls | None) -> list[Pool]:
        """Makes `snapshot` the one that new transactions see. The pools that are not in it any more are returned: to be
        closed once everybody who waits for them can find the new ones."""
        previous, before = self.snapshot, self._pools
        draft, self._draft = self._draft, None
        known = {**(draft.pools if draft is not None else {}), **before}
        staged = draft.layouts if draft is not None and draft.snapshot.digest == snapshot.digest else {}
        for name in snapshot.topologies:
            layout = self.layouts.setdefault(name, Layout(Catalog.EMPTY))
            # there was DDL since the dry run, or still is: what it read of the shards may be old
            forgotten = not layout.loaded and layout.catalog is not Catalog.EMPTY
            if previous is not None and previous.routing_digest(name) != snapshot.routing_digest(name):
                layout.forget()
            layout.sharing = False  # its servers may be others now: what they know is read first
            read = staged.get(name)
            if read is not None and read.loaded and not forgotten:
                layout.catalog, layout.two_phase, layout.loaded = read.catalog, read.two_phase, True
                layout.sharing, layout.read_at = read.sharing, read.read_at
        new = Draft(snapshot, tls, self.layouts)
        self.epoch += 1
        self._fill(new, known, renew=True)
        self.snapshot, self.tls = snapshot, tls
        self._pools, self.by_user = new.pools, new.by_user
        return [pool for key, pool in known.items() if key not in new.pools]

    def _fill(self, draft: Draft, before: dict[PoolKey, Pool], *, renew: bool) -> None:
        config = draft.snapshot.config
        for user in config.users:
            for name in databases_of(config, user):
                if (user.name, name) in draft.by_user or find_user(config, user.name, name) is not user:
                    continue
                draft.by_user[(user.name, name)] = self._database(draft, user, name, before, renew=renew)

    def _database(self, draft: Draft, user: User, name: str, before: dict[PoolKey, Pool], *, renew: bool) -> Database:
        snapshot = draft.snapshot
        config, general = snapshot.config, snapshot.config.general

        def pool(entry: Entry) -> Pool:
            return self._pool(draft, user, entry, before, renew=renew)

        balancers = []
        for shard in range(config.shards(name)):
            entries = [e for e in config.targets(name) if e.shard == shard and not e.resharding_only]
            primary = [pool(e) for e in entries if e.role.value != "replica"]
            replicas = [pool(e) for e in entries if e.role.value == "replica"]
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
        return Database(
            name=name,
            user=user.name,
            epoch=self.epoch,
            mode=pooler_mode(config, user, name).value,
            balancers=tuple(balancers),
            topology=snapshot.topologies[name],
            gate=self.gate(name),
            layout=draft.layouts[name],
            prepared_limit=max(1, general.prepared_statements_limit),
            prepared_level=general.prepared_statements.value,
            read_write_strategy=general.read_write_strategy.value,
            two_phase="off" if rules.two_phase_commit_auto is False and not rules.two_phase_commit else "auto",
            cross_shard_disabled=rules.cross_shard_disabled,
            expanded_explain=general.expanded_explain,
            query_timeout_s=seconds(general.query_timeout),
            idle_in_transaction_timeout_s=seconds(general.client_idle_in_transaction_timeout),
            client_idle_timeout_s=seconds(general.client_idle_timeout),
        )

    def _pool(self, draft: Draft, user: User, entry: Entry, before: dict[PoolKey, Pool], *, renew: bool) -> Pool:
        config = draft.snapshot.config
        chosen = pool_settings(config, user, entry)
        role = "replica" if entry.role.value == "replica" else "primary"
        target = self._target(config, user, entry, draft.tls)
        key: PoolKey = (user.name, entry.name, entry.shard, role, target)
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
            lanes=chosen.lanes,
            coalesce=config.general.coalesce,
        )
        pool = before.get(key) or draft.pools.get(key)
        if pool is None:
            pool = Pool(
                target,
                settings,
                self._around,
                user=user.name,
                database=entry.name,
                shard=entry.shard,
                role=role,
            )
        elif renew:
            pool.take_settings(settings)
        draft.pools[key] = pool
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
