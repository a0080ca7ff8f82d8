"""What SHOW shows. One `View` per command; a column's name, type and value stand in one line.

Names, types and order are PgDog's (reference: pgdog-admin section 3); columns of ours come after them. Counts are
looked up where the truth lives when somebody asks; nothing is kept for the console.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from node.admin.answers import Field, Row, Type, Value
from node.client.session import Session
from node.client.states import CLOSED, SLOW, WAITING
from node.gate import Reason
from node.pool.health import FOREVER
from node.server.connection import State
from node.stats.counters import LANE_STATS, SHOWN, totals
from node.wire.codes import Transaction

if TYPE_CHECKING:
    from discovery.service import MemberView
    from node.admin.ports import Node, RolloutStatus
    from node.client.prepared import Prepared
    from node.pool.pool import Pool
    from node.server.connection import ServerConnection
    from sync.messages import MemberRow
    from sync.version import ConfigVersion

TEXT, BIGINT, NUMERIC, BOOL = Type.TEXT, Type.BIGINT, Type.NUMERIC, Type.BOOL

COMPATIBLE = "0.1.54"
"""The PgDog whose console this is; clients look for the words `PgDog v`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """`value` gets the node and one item of the view."""

    name: str
    type: Type
    value: Callable[[Node, T], Value]


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """`name` follows SHOW; `keeps` are columns that a filter cannot leave out; `tag` where it is not `SHOW name`."""

    name: str
    text: str
    items: Callable[[Node], Iterable[T]]
    columns: tuple[Column[T], ...]
    tag: str = ""
    keeps: frozenset[str] = frozenset()

    def rows(self, node: Node, columns: tuple[Column[T], ...]) -> Iterator[Row]:
        for item in self.items(node):
            yield [column.value(node, item) for column in columns]


def fields(columns: Iterable[Column[T]]) -> tuple[Field, ...]:
    return tuple(Field(column.name, column.type) for column in columns)


def time_text(seconds_utc: float | None) -> str | None:
    """Local time with milliseconds and zone, as PgDog prints it."""
    if seconds_utc is None:
        return None
    local = datetime.fromtimestamp(seconds_utc, UTC).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%Z}"


def _when(node: Node, at: float) -> str | None:
    return time_text(node.utc(at)) if at else None


def _ms(seconds: float) -> float:
    return seconds * 1000


# --- clients ---------------------------------------------------------------------------------------------------------


def client_state(session: Session) -> str:
    """PgDog's words."""
    if session.state == CLOSED:
        return "disconnected"
    if session.state == WAITING:
        return "waiting"
    server = session.server
    if session.state == SLOW or (server is not None and not server.pipeline.idle()):
        return "active"
    if session.tx_status == Transaction.OPEN:
        return "idle in transaction"
    return "transaction error" if session.tx_status == Transaction.FAILED else "idle"


CLIENTS: tuple[Column[Session], ...] = (
    Column("id", BIGINT, lambda _, c: c.id),
    Column("user", TEXT, lambda _, c: c.account.user),
    Column("database", TEXT, lambda _, c: c.database.name),
    Column("addr", TEXT, lambda _, c: c.shell.address()[0]),
    Column("port", NUMERIC, lambda _, c: c.shell.address()[1]),
    Column("state", TEXT, lambda _, c: client_state(c)),
    Column("replication", TEXT, lambda _, c: "none"),
    Column("connect_time", TEXT, lambda n, c: _when(n, c.connected_at)),
    Column("last_request", TEXT, lambda n, c: _when(n, c.last_request)),
    Column("queries", NUMERIC, lambda _, c: c.queries),
    Column("transactions", NUMERIC, lambda _, c: c.transactions),
    Column("transactions_2pc", NUMERIC, lambda _, c: c.transactions_2pc),
    Column("wait_time", NUMERIC, lambda _, c: _ms(c.wait_time_s)),
    Column("query_time", NUMERIC, lambda _, c: _ms(c.query_time_s)),
    Column("transaction_time", NUMERIC, lambda _, c: _ms(c.transaction_time_s)),
    Column("bytes_received", NUMERIC, lambda _, c: c.bytes_received),
    Column("bytes_sent", NUMERIC, lambda _, c: c.bytes_sent),
    Column("errors", NUMERIC, lambda _, c: c.errors),
    Column("application_name", TEXT, lambda _, c: c.application_name),
    Column("locked", BOOL, lambda _, c: c.pin is not None),
    Column("prepared_statements", NUMERIC, lambda _, c: len(c.prepared)),
)


# --- servers and pools -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerRow:
    pool: Pool
    server: ServerConnection


def _servers(node: Node) -> Iterator[ServerRow]:
    for pool in node.databases.pools:
        for server in (*pool.core.idle, *pool.core.lent):
            yield ServerRow(pool, server)


def _client_of(row: ServerRow) -> int | None:
    owner = row.server.owner
    return owner.id if isinstance(owner, Session) else None


SERVERS: tuple[Column[ServerRow], ...] = (
    Column("pool_id", BIGINT, lambda _, s: s.pool.id),
    Column("database", TEXT, lambda _, s: s.pool.database),
    Column("user", TEXT, lambda _, s: s.pool.user),
    Column("addr", TEXT, lambda _, s: s.pool.target.host),
    Column("port", NUMERIC, lambda _, s: s.pool.target.port),
    Column("state", TEXT, lambda _, s: s.server.state.value),
    Column("connect_time", TEXT, lambda n, s: _when(n, s.server.created_at)),
    Column("request_time", TEXT, lambda n, s: _when(n, s.server.requested_at)),
    Column("remote_pid", NUMERIC, lambda _, s: s.server.pid),
    Column("client_id", BIGINT, lambda _, s: _client_of(s)),
    Column("transactions", NUMERIC, lambda _, s: s.server.transactions),
    Column("queries", NUMERIC, lambda _, s: s.server.queries),
    Column("rollbacks", NUMERIC, lambda _, s: s.server.rollbacks),
    Column("prepared_statements", NUMERIC, lambda _, s: len(s.server.prepared)),
    Column("healthchecks", NUMERIC, lambda _, s: s.server.healthchecks),
    Column("errors", NUMERIC, lambda _, s: s.server.errors),
    Column("bytes_received", NUMERIC, lambda _, s: s.server.bytes_received),
    Column("bytes_sent", NUMERIC, lambda _, s: s.server.bytes_sent),
    # single letters are not kept: that would cost every message
    Column("last_sent", TEXT, lambda _, s: None),
    Column("last_received", TEXT, lambda _, s: None),
    Column("age", NUMERIC, lambda n, s: int(n.clock() - s.server.created_at)),
    Column("application_name", TEXT, lambda _, s: s.pool.target.application_name),
)

_IN_TRANSACTION = frozenset((State.IDLE_IN_TRANSACTION, State.TRANSACTION_ERROR))


def _idle_in_transaction(pool: Pool) -> int:
    return sum(server.state in _IN_TRANSACTION for server in pool.core.lent)


def _longest_wait_us(node: Node, pool: Pool) -> int:
    since = next((waiter.since for waiter in pool.core.waiters if not waiter.gone), None)
    return 0 if since is None else max(0, int((node.clock() - since) * 1_000_000))


def paused(node: Node, pool: Pool) -> bool:
    gate = node.databases.gates.get(pool.database)
    return pool.core.paused or (gate is not None and Reason.PAUSE in gate.reasons)


def _pool_columns(first: str = "id") -> tuple[Column[Pool], ...]:
    """Which pool a row is about; the same in every view that has one row per pool."""
    place: tuple[Column[Pool], ...] = (
        Column("database", TEXT, lambda _, p: p.database),
        Column("user", TEXT, lambda _, p: p.user),
        Column("addr", TEXT, lambda _, p: p.target.host),
        Column("port", NUMERIC, lambda _, p: p.target.port),
        Column("shard", NUMERIC, lambda _, p: p.shard),
        Column("role", TEXT, lambda _, p: p.role),
    )
    number: Column[Pool] = Column(first, BIGINT, lambda _, p: p.id)
    return (number, *place) if first else place


def _lane_count(name: str) -> Column[Pool]:
    return Column(name, NUMERIC, lambda n, p: _counted(n, p, name))


POOLS: tuple[Column[Pool], ...] = (
    *_pool_columns(),
    Column("cl_waiting", NUMERIC, lambda _, p: p.core.waiting()),
    Column("sv_idle", NUMERIC, lambda _, p: len(p.core.idle)),
    Column("sv_active", NUMERIC, lambda _, p: len(p.core.lent) - _idle_in_transaction(p)),
    Column("sv_idle_xact", NUMERIC, lambda _, p: _idle_in_transaction(p)),
    Column("sv_total", NUMERIC, lambda _, p: p.core.total),
    Column("maxwait", NUMERIC, lambda n, p: _longest_wait_us(n, p) // 1_000_000),
    Column("maxwait_us", NUMERIC, lambda n, p: _longest_wait_us(n, p) % 1_000_000),
    Column("pool_mode", TEXT, lambda _, p: p.settings.mode),
    Column("paused", BOOL, lambda n, p: paused(n, p)),
    Column("banned", BOOL, lambda n, p: p.health.banned(n.clock())),
    Column("healthy", BOOL, lambda _, p: p.health.healthy),
    Column("errors", NUMERIC, lambda n, p: _counted(n, p, "errors")),
    Column("re_synced", NUMERIC, lambda n, p: _counted(n, p, "re_synced")),
    Column("out_of_sync", NUMERIC, lambda n, p: _counted(n, p, "out_of_sync")),
    Column("force_closed", NUMERIC, lambda n, p: _counted(n, p, "force_closed")),
    Column("online", BOOL, lambda _, p: not p.closed),
    # users.schema_admin is read, but the catalogue is read as the pool's user: no pool is one
    Column("schema_admin", BOOL, lambda _, p: False),
    # ours, behind PgDog's
    Column("lanes", NUMERIC, lambda _, p: 0 if p.lanes is None else len(p.lanes.active)),
    Column("lanes_allowed", NUMERIC, lambda _, p: 0 if p.lanes is None else p.lanes.count.allowed),
    Column("lane_riders", NUMERIC, lambda _, p: 0 if p.lanes is None else sum(lane.depth for lane in p.lanes.active)),
    *(_lane_count(stat.attribute) for stat in LANE_STATS),
)


def _counted(node: Node, pool: Pool, attribute: str) -> int:
    return int(getattr(node.counters(pool)[0], attribute))


def _banned(node: Node) -> Iterator[Pool]:
    now = node.clock()
    return (pool for pool in node.databases.pools if pool.health.banned(now))


def _ban_reason(pool: Pool) -> str | None:
    return pool.health.ban.reason if pool.health.ban is not None else None


def _ban_time_left_ms(node: Node, pool: Pool) -> int | None:
    ban = pool.health.ban
    return None if ban is None or ban.until == FOREVER else max(0, int(_ms(ban.until - node.clock())))


BANS: tuple[Column[Pool], ...] = (
    *_pool_columns(),
    Column("ban_reason", TEXT, lambda _, p: _ban_reason(p)),
    Column("ban_time_left", NUMERIC, lambda n, p: _ban_time_left_ms(n, p)),
)


def _replaying(pool: Pool) -> str | None:
    """What the server itself reported last (in_hot_standby, PostgreSQL 14 and later)."""
    return {"on": "t", "off": "f"}.get(pool.server_parameters.get("in_hot_standby", ""))


REPLICATION: tuple[Column[Pool], ...] = (
    *_pool_columns(),
    # lag is not measured yet: NULL, not zero
    Column("replica_lag", TEXT, lambda _, p: None),
    Column("pg_lsn", TEXT, lambda _, p: None),
    Column("lsn_age", TEXT, lambda _, p: None),
    Column("pg_is_in_recovery", TEXT, lambda _, p: _replaying(p)),
)


# --- statistics ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StatsRow:
    """One pool's figures, read once for all its columns."""

    pool: Pool
    values: dict[str, int | float]


def _stats(node: Node) -> Iterator[StatsRow]:
    for pool in node.databases.pools:
        source, averages = node.counters(pool)
        yield StatsRow(pool, {**dict(totals(source, (*SHOWN, *LANE_STATS))), **dict(averages.values())})


def _of_pool(column: Column[Pool]) -> Column[StatsRow]:
    return Column(column.name, column.type, lambda n, s: column.value(n, s.pool))


def _figure(name: str) -> Column[StatsRow]:
    return Column(name, NUMERIC, lambda _, s: s.values[name])


STATISTICS: tuple[Column[StatsRow], ...] = (
    *map(_of_pool, _pool_columns("")),
    *(_figure(f"{prefix}_{stat.name}") for prefix in ("total", "avg") for stat in SHOWN),
    *(_figure(f"total_{stat.name}") for stat in LANE_STATS),  # ours, behind PgDog's
)


@dataclass(frozen=True, slots=True)
class Lists:
    databases: int
    users: int
    pools: int
    clients: int
    free_servers: int
    used_servers: int


def _lists(node: Node) -> Iterator[Lists]:
    pools = node.databases.pools
    pairs = list(node.databases.by_user)
    yield Lists(
        databases=len({database for _, database in pairs}),
        users=len({user for user, _ in pairs}),
        pools=len(pools),
        clients=len(node.services.sessions),
        free_servers=sum(len(pool.core.idle) for pool in pools),
        used_servers=sum(len(pool.core.lent) for pool in pools),
    )


LISTS: tuple[Column[Lists], ...] = (
    Column("databases", NUMERIC, lambda _, x: x.databases),
    Column("users", NUMERIC, lambda _, x: x.users),
    Column("pools", NUMERIC, lambda _, x: x.pools),
    # PgDog has this name twice, so both say what the name says
    Column("used_clients", NUMERIC, lambda _, x: x.clients),
    Column("used_clients", NUMERIC, lambda _, x: x.clients),
    Column("free_servers", NUMERIC, lambda _, x: x.free_servers),
    Column("used_servers", NUMERIC, lambda _, x: x.used_servers),
)


# --- statements ------------------------------------------------------------------------------------------------------


PREPARED: tuple[Column[Prepared], ...] = (
    Column("name", TEXT, lambda _, p: p.name.decode("utf-8", "replace")),
    Column("statement", TEXT, lambda _, p: p.sql.decode("utf-8", "replace")),
    Column("rewrite", TEXT, lambda _, p: None),
    Column("used_by", NUMERIC, lambda _, p: p.used_by),
    Column("memory_used", NUMERIC, lambda _, p: p.memory_bytes),
)

CachedQuery = tuple[str, int, int, int]
QUERY_CACHE: tuple[Column[CachedQuery], ...] = (
    Column("query", TEXT, lambda _, q: q[0]),
    Column("hits", NUMERIC, lambda _, q: q[1]),
    Column("direct", NUMERIC, lambda _, q: q[2]),
    Column("multi", NUMERIC, lambda _, q: q[3]),
)


def cached_queries(node: Node, substring: str = "") -> list[CachedQuery]:
    """Most hits first; `substring` in any case."""
    wanted = substring.casefold()
    rows = [row for row in node.services.shapes.cache.rows() if wanted in row[0].casefold()]
    return sorted(rows, key=lambda row: -row[1])


# --- the flock -------------------------------------------------------------------------------------------------------


def _protocol(member: MemberView) -> str:
    low, high = member.protocol
    return str(low) if low == high else f"{low}-{high}"


PEERS: tuple[Column[MemberView], ...] = (
    Column("addr", TEXT, lambda _, m: m.addr),
    Column("last_seen", TEXT, lambda _, m: time_text(m.last_seen_utc)),
    Column("clients", NUMERIC, lambda _, m: m.clients),
    Column("node", TEXT, lambda _, m: m.node),
    Column("state", TEXT, lambda _, m: m.state.value),
    Column("incarnation", BIGINT, lambda _, m: m.incarnation),
    Column("version", BIGINT, lambda _, m: m.version),
    Column("digest", TEXT, lambda _, m: m.digest),
    Column("protocol", TEXT, lambda _, m: _protocol(m)),
)


@dataclass(frozen=True, slots=True)
class RolloutRow:
    status: RolloutStatus
    member: MemberRow


def _rollout(node: Node) -> Iterator[RolloutRow]:
    status = node.rollout_status()
    return (RolloutRow(status, member) for member in status.nodes)


ROLLOUT: tuple[Column[RolloutRow], ...] = (
    Column("id", BIGINT, lambda _, r: r.status.rid),
    Column("version", BIGINT, lambda _, r: r.status.version),
    Column("phase", TEXT, lambda _, r: r.status.phase),
    Column("coordinator", TEXT, lambda _, r: r.status.coordinator),
    Column("started", TEXT, lambda _, r: time_text(r.status.started_utc)),
    Column("node", TEXT, lambda _, r: r.member.node),
    Column("state", TEXT, lambda _, r: r.member.state),
    Column("paused_ms", NUMERIC, lambda _, r: r.member.paused_ms),
    Column("drained_ms", NUMERIC, lambda _, r: r.member.drained_ms),
    Column("reason", TEXT, lambda _, r: r.member.reason),
)

HISTORY: tuple[Column[ConfigVersion], ...] = (
    Column("version", BIGINT, lambda _, v: v.n),
    Column("digest", TEXT, lambda _, v: v.digest),
    Column("parent", TEXT, lambda _, v: v.parent or None),
    Column("rollout", BIGINT, lambda _, v: v.rid),
    Column("node", TEXT, lambda _, v: v.by),
    Column("decided", TEXT, lambda _, v: time_text(v.at_utc)),
)


# --- one value, or nothing yet ---------------------------------------------------------------------------------------

SETTINGS: tuple[Column[tuple[str, str]], ...] = (
    Column("name", TEXT, lambda _, s: s[0]),
    Column("value", TEXT, lambda _, s: s[1]),
)
VERSION: tuple[Column[None], ...] = (
    Column("version", TEXT, lambda n, _: f"PgDog v{COMPATIBLE} [pgmurmur v{n.version}]"),
)
INSTANCE_ID: tuple[Column[None], ...] = (Column("instance_id", TEXT, lambda n, _: n.name),)

EMPTY = {
    "TRANSACTIONS": "database user transaction_name transaction_state",
    "MIRRORS": "database user total_count:n mirrored_count:n dropped_count:n error_count:n queue_length:n",
    "LISTENERS": "database user shard:n channel listeners:n received:n dropped:n",
    "REPLICATION_SLOTS": "host port:b database_name name lsn lag lag_bytes:b copy_data:t last_transaction"
    " last_transaction_ms:b",
    "SCHEMA_SYNC": "database user shard:b kind sync_state started_at elapsed elapsed_ms:b table_schema table_name sql",
    "TABLE_COPIES": "schema table status rows:b rows_human bytes:b bytes_human bytes_per_sec:b bytes_per_sec_human"
    " elapsed elapsed_ms:b sql",
    "TASKS": "id:b scope type status inner_status started_at updated_at elapsed elapsed_ms:b",
    "SERVER MEMORY": "pool_id:b database user addr port:n remote_pid:n buffer_reallocs:n buffer_reclaims:n"
    " buffer_bytes_used:n buffer_bytes_alloc:n prepared_statements_bytes:n net_buffer_bytes:n total_bytes:n",
    "CLIENT MEMORY": "client_id:b database user addr port:n buffer_reallocs:n buffer_reclaims:n"
    " buffer_bytes_used:n buffer_bytes_alloc:n prepared_statements_bytes:n net_buffer_bytes:n total_bytes:n",
}
"""Views of features that do not exist here yet: the columns of PgDog, no rows."""

_TYPES = {"": TEXT, "n": NUMERIC, "b": BIGINT, "t": BOOL}


def _empty(name: str, declared: str) -> View[None]:
    columns: list[Column[None]] = []
    for one in declared.split():
        column, _, letter = one.partition(":")
        columns.append(Column(column, _TYPES[letter], lambda *_: None))
    return View(name, "always empty so far: the feature does not exist yet", lambda _: (), tuple(columns))


def _once(node: Node) -> tuple[None]:
    return (None,)


VIEWS: tuple[View[Any], ...] = (  # Any: a table of views of different things, each sound in itself
    View(
        "CLIENTS", "clients and what they do", lambda n: list(n.services.sessions.values()), CLIENTS,
        keeps=frozenset(("user", "database", "addr", "port")),
    ),
    View("SERVERS", "connections to servers", _servers, SERVERS, tag="SHOW"),
    View("POOLS", "pools, one per user and target", lambda n: n.databases.pools, POOLS),
    View("BANS", "pools that get no reads now, and why", _banned, BANS),
    View("CONFIG", "settings in force", lambda n: n.settings(), SETTINGS, tag="SHOW"),
    View("STATS", "counters of every pool, sums and averages", _stats, STATISTICS),
    View("LISTS", "how many of what", _lists, LISTS),
    View("PREPARED", "prepared statements shared by clients",
         lambda n: list(n.services.prepared.known.values()), PREPARED, tag="SHOW PREPARED STATEMENTS"),
    View("REPLICATION", "servers and whether they replay", lambda n: n.databases.pools, REPLICATION),
    View("PEERS", "members of the flock", lambda n: n.members(), PEERS),
    View("ROLLOUT", "the open rollout, or the last one", _rollout, ROLLOUT),
    View("CONFIG HISTORY", "versions one can return to", lambda n: n.history(), HISTORY),
    View("VERSION", "what this is", _once, VERSION),
    View("INSTANCE_ID", "this node's name", _once, INSTANCE_ID),
    *(_empty(name, declared) for name, declared in EMPTY.items()),
)  # fmt: skip
