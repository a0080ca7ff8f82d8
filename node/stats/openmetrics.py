"""The text of /metrics: PgDog's names, types and labels (pgdog-admin section 4), then ours.

Format: Prometheus text exposition 0.0.4. The namespace is put in front of each name as it is; floats have 3 decimals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from node.stats.counters import EXPORTED, LANE_STATS, Averages, Stat

CONTENT_TYPE = "text/plain; version=0.0.4"


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"


Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One family: every sample has the same names of labels."""

    name: str
    kind: Kind
    text: str
    samples: Sequence[tuple[Labels, float]]
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class PoolSample:
    """One pool at this moment. `counters`: a `PoolCounters`, or anything that has its attributes."""

    user: str
    database: str
    host: str
    port: int
    shard: int
    role: str
    max_connections: int
    cl_waiting: int
    sv_active: int
    sv_idle: int
    sv_idle_xact: int
    maxwait_s: float
    counters: object
    averages: Averages
    sv_locked: int = 0

    @property
    def labels(self) -> Labels:
        return (
            ("user", self.user),
            ("database", self.database),
            ("host", self.host),
            ("port", str(self.port)),
            ("shard", str(self.shard)),
            ("role", self.role),
        )


@dataclass(frozen=True, slots=True)
class NodeSample:
    """The node at this moment. What belongs to a feature that is not built stays 0."""

    pools: Sequence[PoolSample] = ()
    clients: int = 0
    clients_locked: int = 0
    prepared_statements_limit: int = 0
    prepared_statements: int = 0
    prepared_statements_memory_used: int = 0
    query_cache_limit: int = 0
    query_cache_size: int = 0
    query_cache_hits: int = 0
    query_cache_misses: int = 0
    query_cache_direct: int = 0
    query_cache_cross: int = 0
    query_cache_parse_time_ms: float = 0.0
    query_cache_fingerprints: int = 0
    two_pc_recovered: int = 0
    clients_refused: int = 0
    exchange_bytes: int = 0
    exchanges: int = 0
    loop_lag_s: float = 0.0
    config_version: int = 0
    ready: bool = True
    members: Mapping[str, int] = field(default_factory=dict)  # by state: alive, suspect, dead, left
    paused: Mapping[str, bool] = field(default_factory=dict)  # by logical database
    gate_waiting: Mapping[str, int] = field(default_factory=dict)  # clients waiting there
    rollouts: Mapping[str, int] = field(default_factory=dict)  # by outcome: committed, aborted


# name, kind, attribute of PoolSample, unit, help
_POOL_GAUGES = (
    ("max_connections", "max_connections", None, "most connections of the pool"),
    ("cl_waiting", "cl_waiting", None, "clients waiting for a server"),
    ("sv_active", "sv_active", None, "servers in use"),
    ("sv_idle", "sv_idle", None, "servers free"),
    ("sv_locked", "sv_locked", None, "servers that stay with their client"),
    ("sv_idle_xact", "sv_idle_xact", None, "servers idle inside a transaction"),
    ("maxwait", "maxwait_s", "seconds", "how long the first client has been waiting"),
)

_POOL_COUNTERS = (
    ("errors", "errors", "errors of the pool"),
    ("out_of_sync", "out_of_sync", "servers closed because their replies did not fit"),
)

# name, kind, attribute of NodeSample, unit, help; PgDog's first, in its order
_NODE = (
    ("prepared_statements_limit", Kind.GAUGE, "prepared_statements_limit", None, "most prepared statements"),
    ("query_cache_limit", Kind.GAUGE, "query_cache_limit", None, "most statement shapes kept parsed"),
    ("query_cache_hits", Kind.COUNTER, "query_cache_hits", None, "statements whose shape was known"),
    ("query_cache_misses", Kind.COUNTER, "query_cache_misses", None, "statements that had to be parsed"),
    ("query_cache_direct", Kind.COUNTER, "query_cache_direct", None, "statements routed to one shard"),
    ("query_cache_cross", Kind.COUNTER, "query_cache_cross", None, "statements routed to several shards"),
    ("query_cache_parse_time", Kind.COUNTER, "query_cache_parse_time_ms", "milliseconds", "time spent parsing"),
    ("query_cache_fingerprints", Kind.COUNTER, "query_cache_fingerprints", None, "shapes computed"),
    ("query_cache_size", Kind.GAUGE, "query_cache_size", None, "statement shapes kept parsed"),
    ("prepared_statements", Kind.GAUGE, "prepared_statements", None, "prepared statements known to the node"),
    (
        "prepared_statements_memory_used",
        Kind.GAUGE,
        "prepared_statements_memory_used",
        "bytes",
        "memory of prepared statements",
    ),
    ("two_pc_recovered_total", Kind.COUNTER, "two_pc_recovered", None, "transactions finished after a crash"),
    ("clients_refused", Kind.COUNTER, "clients_refused", None, "clients refused because of max_client_conn"),
    ("exchanges", Kind.COUNTER, "exchanges", None, "statements finished on one server over rows of all shards"),
    ("exchange_bytes", Kind.COUNTER, "exchange_bytes", "bytes", "rows moved for them"),
    ("loop_lag", Kind.GAUGE, "loop_lag_s", "seconds", "how late the event loop runs"),
    ("config_version", Kind.GAUGE, "config_version", None, "version of the configuration in force here"),
    ("ready", Kind.GAUGE, "ready", None, "1 when the node takes clients"),
)

_BY_LABEL = (
    ("members", Kind.GAUGE, "members", "state", "members of the flock"),
    ("maintenance", Kind.GAUGE, "paused", "database", "1 while new transactions wait"),
    ("gate_waiting", Kind.GAUGE, "gate_waiting", "database", "clients waiting for a paused database"),
    ("rollouts", Kind.COUNTER, "rollouts", "outcome", "rollouts this node took part in"),
)


def metrics(node: NodeSample) -> Iterator[Metric]:
    """Every family of a node."""
    yield Metric("clients", Kind.GAUGE, "connected clients", [((), node.clients)])
    yield Metric("clients_locked", Kind.GAUGE, "clients that keep their server", [((), node.clients_locked)])
    yield from _pools(node.pools)
    for name, kind, attribute, unit, text in _NODE:
        yield Metric(name, kind, text, [((), float(getattr(node, attribute)))], unit)
    for name, kind, attribute, label, text in _BY_LABEL:
        values: Mapping[str, float] = getattr(node, attribute)
        if values:
            yield Metric(name, kind, text, [(((label, key),), float(value)) for key, value in values.items()])


def _pools(pools: Sequence[PoolSample]) -> Iterator[Metric]:
    if not pools:
        return
    for name, attribute, unit, text in _POOL_GAUGES:
        yield Metric(name, Kind.GAUGE, text, [(pool.labels, getattr(pool, attribute)) for pool in pools], unit)
    for name, attribute, text in _POOL_COUNTERS:
        samples = [(pool.labels, getattr(pool.counters, attribute)) for pool in pools]
        yield Metric(name, Kind.COUNTER, text, samples)
    averages = [dict(pool.averages.values(EXPORTED)) for pool in pools]
    for stat in (*EXPORTED, *LANE_STATS):
        yield _total(stat, pools)
        if stat in EXPORTED:
            name = f"avg_{stat.name}"
            samples = [(pool.labels, values[name]) for pool, values in zip(pools, averages, strict=True)]
            yield Metric(name, Kind.GAUGE, f"{stat.text}, average of the last period", samples, stat.unit)


def _total(stat: Stat, pools: Sequence[PoolSample]) -> Metric:
    scale = 1000 if stat.is_time else 1
    samples = [(pool.labels, getattr(pool.counters, stat.attribute, 0) * scale) for pool in pools]
    return Metric(f"total_{stat.name}", Kind.COUNTER, stat.text, samples, stat.unit)


# -- text -------------------------------------------------------------------------------------------------------------


def render(families: Iterable[Metric], namespace: str | None = None) -> str:
    """The whole body. `namespace` is put in front of every name without a separator."""
    return "".join(_family(one, (namespace or "") + one.name) for one in families)


def _family(metric: Metric, name: str) -> str:
    lines = [f"# TYPE {name} {metric.kind}"]
    if metric.unit is not None:
        lines.append(f"# UNIT {name} {metric.unit}")
    lines.append(f"# HELP {name} {_escaped(metric.text, quotes=False)}")
    lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in metric.samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(text: str, *, quotes: bool = True) -> str:
    """A user or database may have any name; an unescaped newline would end the sample and forge the next."""
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped


def _number(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) and not value.is_integer() else str(int(value))
