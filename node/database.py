"""One logical database as one user sees it: its shards and pools, its gate, its map. What a session works with.

Built from a Snapshot by `databases.py`; pools live on across snapshots as long as their target and settings do.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from node.gate import Gate
from node.pool.balancer import Balancer
from node.pool.pool import Pool
from node.routing.catalog import Catalog
from node.routing.topology import Topology

if TYPE_CHECKING:
    from node.client.shape import Shape
    from node.client.spread import Spreads
    from node.client.weight import Weights

# prepared_statements levels at which names are managed by the proxy
_MANAGED = ("extended", "extended_anonymous", "full")


class Layout:
    """What is known of a logical database beside its configuration; shared by all its users, renewed after DDL."""

    __slots__ = (
        "catalog", "failures", "generation", "loaded", "loading", "read_at", "retry_at", "sharing", "spreads",
        "two_phase", "two_phase_told", "waiting_since", "wanted", "weights",
    )  # fmt: skip

    def __init__(
        self, catalog: Catalog, *, two_phase: bool = False, loaded: bool = False, sharing: bool = False
    ) -> None:
        self.catalog = catalog
        self.two_phase = two_phase  # every shard allows prepared transactions
        self.loaded = loaded
        self.generation = 0  # raised when what was read may be out of date: a reading that began before counts no more
        self.two_phase_told = False
        self.weights: Weights | None = None  # which shapes may share a connection, under this catalogue
        self.spreads: Spreads | None = None  # the same for statements over several shards
        self.loading: Awaitable[None] | None = None  # one reading at a time; who comes later awaits it
        self.sharing = sharing  # the catalogue is fresh enough to say which statements may share a server
        self.read_at = 0.0  # when the last reading began
        self.wanted = False  # somebody would share
        self.retry_at = 0.0  # the next background reading is not before
        self.failures = 0  # of background readings, one after the other
        self.waiting_since: float | None = None  # for a connection that is idle

    def learn(self, catalog: Catalog) -> None:
        """Another catalogue: what was known of statements under the old one counts no more."""
        self.catalog = catalog
        self.weights = self.spreads = None

    def forget(self) -> None:
        """Read it again before the next statement is planned; until then nothing shares."""
        self.generation += 1
        self.loaded = self.sharing = False


class Database:
    """`epoch` tells the snapshot it was built from; a session that sees a newer one asks for its database again."""

    __slots__ = (
        "balancers", "client_idle_timeout_s", "cross_shard_disabled", "epoch", "expanded_explain", "gate",
        "idle_in_transaction_timeout_s", "layout", "lone", "mode", "name", "only", "prepared_level", "prepared_limit",
        "query_timeout_s", "read_write_strategy", "routed", "topology", "two_phase", "user",
    )  # fmt: skip

    def __init__(
        self,
        *,
        name: str,
        user: str,
        epoch: int,
        mode: str,
        balancers: tuple[Balancer, ...],
        topology: Topology,
        gate: Gate,
        layout: Layout,
        prepared_limit: int,
        prepared_level: str = "extended",
        read_write_strategy: str = "conservative",
        two_phase: str = "auto",
        cross_shard_disabled: bool = False,
        expanded_explain: bool = False,
        query_timeout_s: float = float("inf"),
        idle_in_transaction_timeout_s: float = float("inf"),
        client_idle_timeout_s: float = float("inf"),
    ) -> None:
        self.name = name
        self.user = user
        self.epoch = epoch
        self.mode = mode
        self.balancers = balancers
        self.topology = topology
        self.gate = gate
        self.layout = layout
        self.prepared_limit = prepared_limit
        self.prepared_level = prepared_level
        self.read_write_strategy = read_write_strategy
        self.two_phase = two_phase
        self.cross_shard_disabled = cross_shard_disabled
        self.expanded_explain = expanded_explain
        self.query_timeout_s = query_timeout_s
        self.idle_in_transaction_timeout_s = idle_in_transaction_timeout_s
        self.client_idle_timeout_s = client_idle_timeout_s
        self.routed = len(balancers) > 1
        # by shard: its one pool, where there are no replicas to choose from
        self.lone: tuple[Pool | None, ...] = tuple(each.lone for each in balancers)
        # the one pool of a database without shards and replicas
        self.only: Pool | None = self.lone[0] if len(balancers) == 1 else None

    @property
    def manages_statements(self) -> bool:
        return self.mode != "session" and self.prepared_level in _MANAGED

    @property
    def pools(self) -> list[Pool]:
        return [pool for balancer in self.balancers for pool in balancer.pools]

    def server_parameters(self) -> dict[str, str]:
        """ParameterStatus values as servers of this database report them; empty before the first connection."""
        for pool in self.pools:
            if pool.server_parameters:
                return pool.server_parameters
        return {}

    def may_read_elsewhere(self, shape: Shape) -> bool:
        """May a replica answer a transaction that begins with this statement?"""
        if shape.begins:
            return shape.begins_read_only
        return shape.read_only
