"""Counters of one pool, and the averages of SHOW STATS.

One table, `STATS`, says what a counter is called in SHOW STATS and in metrics (PgDog's names), which attribute holds it
and what its average is divided by; both outputs follow from it. Counting is `counters.queries += 1`: the data plane
pays for an attribute and nothing else. Times are kept in seconds (`_s`), shown in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter

from node.stats.pool_counters import PoolCounters as PoolCounters


class Per(Enum):
    """What the growth in one period is divided by (reference: pgdog-admin section 3)."""

    SECOND = "second"
    QUERY = "query"
    TRANSACTION = "transaction"
    ASSIGNMENT = "assignment"
    CONNECT = "connect"
    PAUSE = "pause"  # idle in transaction: between the queries of one transaction there is one pause fewer than queries


@dataclass(frozen=True, slots=True)
class Stat:
    """`name` as PgDog's, after total_ or avg_; `attribute` of the counters; a trailing _s is shown in ms."""

    name: str
    attribute: str
    text: str
    per: Per = Per.SECOND
    in_show: bool = True  # SHOW STATS
    in_metrics: bool = True  # the metrics endpoint

    @property
    def is_time(self) -> bool:
        return self.attribute.endswith("_s")

    @property
    def unit(self) -> str | None:
        return "milliseconds" if self.is_time else "bytes" if self.name in ("received", "sent") else None


STATS: tuple[Stat, ...] = (
    Stat("xact_count", "transactions", "transactions"),
    Stat("xact_2pc_count", "transactions_2pc", "transactions committed in two phases"),
    Stat("query_count", "queries", "queries"),
    Stat("server_assignment_count", "assigned", "times a client was given a server", in_metrics=False),
    Stat("received", "bytes_received", "bytes received from servers"),
    Stat("sent", "bytes_sent", "bytes sent to servers"),
    Stat("xact_time", "transaction_time_s", "time in transactions", Per.TRANSACTION),
    Stat("idle_xact_time", "idle_transaction_time_s", "time idle inside transactions", Per.PAUSE),
    Stat("query_time", "query_time_s", "time in queries", Per.QUERY),
    Stat("wait_time", "wait_time_s", "time clients waited for a server", Per.ASSIGNMENT, in_metrics=False),
    Stat("server_parse_count", "parses", "Parse messages sent", in_metrics=False),
    Stat("bind_count", "binds", "Bind messages sent", in_metrics=False),
    Stat("close_count", "closes", "Close messages sent", in_metrics=False),
    Stat("errors", "errors", "errors of this pool", in_metrics=False),
    Stat("prepared_evictions", "prepared_evictions", "prepared statements pushed out of servers", in_show=False),
    Stat("server_errors", "server_errors", "errors reported by servers", in_show=False),
    Stat("cleaned", "cleaned", "connections cleaned between two clients"),
    Stat("rollbacks", "rollbacks", "transactions rolled back for a client that left"),
    Stat("connect_time", "connect_time_s", "time to connect", Per.CONNECT),
    Stat("connect_count", "connects", "connections opened"),
    Stat("reads", "reads", "reads", Per.TRANSACTION),
    Stat("writes", "writes", "writes", Per.TRANSACTION),
    Stat("auth_attempts", "auth_attempts", "logins tried at servers"),
    Stat("rows_inserted", "rows_inserted", "rows inserted"),
    Stat("rows_updated", "rows_updated", "rows updated"),
    Stat("rows_deleted", "rows_deleted", "rows deleted"),
)

# ours: what lanes did (design section 2); totals only
LANE_STATS: tuple[Stat, ...] = tuple(
    Stat(name, name, text, in_show=False)
    for name, text in (
        ("lane_units", "reads that went by a lane"),
        ("lane_shared", "of these, behind another client's"),
        ("lane_coalesced", "of these, answered with an identical one of another client"),
        ("lane_heavy", "reads that ran alone: their shape was new, slow or wide"),
        ("lane_full", "reads that found no lane with room"),
        ("lane_slow", "lanes cleared behind a slow front"),
        ("lane_resent_slow", "reads sent again: the one before them was slow, unread or cancelled"),
        ("lane_resent_lost", "reads sent again, on lanes or alone: their server was lost"),
        ("lane_cancelled", "reads on a lane that were cancelled"),
        ("lane_left", "answers dropped: their client had gone"),
        ("lane_unread", "lanes held up by a client that did not read"),
    )
)

SHOWN = tuple(stat for stat in STATS if stat.in_show)
EXPORTED = tuple(stat for stat in STATS if stat.in_metrics)

_read = attrgetter(*(stat.attribute for stat in STATS))
_INDEX = {stat.name: index for index, stat in enumerate(STATS)}


def totals(source: object, stats: tuple[Stat, ...] = SHOWN) -> Iterator[tuple[str, int | float]]:
    """(`total_...`, value) in order; times in ms. `source` has the attributes of `PoolCounters`."""
    for stat in stats:
        value = getattr(source, stat.attribute)
        yield f"total_{stat.name}", value * 1000 if stat.is_time else value


class Averages:
    """The `avg_` figures of one pool: growth during the last whole period, not since the start."""

    __slots__ = ("_before", "_values")

    def __init__(self) -> None:
        self._before: tuple[float, ...] = (0,) * len(STATS)
        self._values: tuple[float, ...] = (0.0,) * len(STATS)

    def sample(self, source: object, seconds: float) -> None:
        """Ends a period of so many seconds; called every `stats_period`. A pool's counters start at zero, so its
        first period counts from there."""
        now: tuple[float, ...] = _read(source)
        grown = tuple(after - before for after, before in zip(now, self._before, strict=True))
        self._before = now
        queries, transactions = grown[_INDEX["query_count"]], grown[_INDEX["xact_count"]]
        parts = {
            Per.SECOND: seconds,
            Per.QUERY: queries,
            Per.TRANSACTION: transactions,
            Per.ASSIGNMENT: grown[_INDEX["server_assignment_count"]],
            Per.CONNECT: grown[_INDEX["connect_count"]],
            Per.PAUSE: max(queries - transactions, 1),
        }
        self._values = tuple(
            _divide(growth * 1000 if stat.is_time else growth, parts[stat.per])
            for stat, growth in zip(STATS, grown, strict=True)
        )

    def values(self, stats: tuple[Stat, ...] = SHOWN) -> Iterator[tuple[str, float]]:
        """(`avg_...`, value) in order; times in ms."""
        for stat in stats:
            yield f"avg_{stat.name}", self._values[_INDEX[stat.name]]


def _divide(growth: float, parts: float) -> float:
    return growth / parts if parts > 0 else 0.0


class Periods:
    """The averages of every pool of a node, by pool id. Pools that are gone are forgotten, new ones start at zero."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._pools: dict[int, Averages] = {}

    def tick(self, pools: Mapping[int, object], now: float) -> None:
        """Ends a period: `pools` are the counters of every pool there is. Call it each `stats_period`."""
        seconds, self._since = now - self._since, now
        self._pools = {pool: self._pools.get(pool) or Averages() for pool in pools}
        for pool, counters in pools.items():
            self._pools[pool].sample(counters, seconds)

    def of(self, pool: int) -> Averages:
        """Zeros for a pool that has not seen the end of a period."""
        return self._pools.get(pool) or Averages()
