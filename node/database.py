"""One logical database as one user sees it: its shards and pools, its gate, its map. What a session works with.

Built from a Snapshot by `databases.py`; pools live on across snapshots as long as their target and settings do.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class Layout:
    """What is known of a logical database beside its configuration; shared by all its users, renewed after DDL."""

    catalog: Catalog
    two_phase: bool = False  # every shard allows prepared transactions
    loaded: bool = False
    generation: int = 0  # raised when what was read may be out of date: a reading that began before counts no more
    two_phase_told: bool = False
    weights: Weights | None = None  # which shapes may share a connection, under this catalogue
    spreads: Spreads | None = None  # the same for statements over several shards
    loading: Awaitable[None] | None = None  # one reading at a time; who comes later awaits it
    sharing: bool = False  # the catalogue is fresh enough to say which statements may share a server
    read_at: float = 0.0  # when the last reading began
    wanted: bool = False  # somebody would share
    retry_at: float = 0.0  # the next background reading is not before
    failures: int = 0  # of background readings, one after the other
    waiting_since: float | None = None  # for a connection that is idle

    def forget(self) -> None:
        """Read it again before the next statement is planned; until then nothing shares."""
        self.generation += 1
        self.loaded = self.sharing = False


@dataclass(slots=True)
class Database:
    """`epoch` tells the snapshot it was built from; a session that sees a newer one asks for its database again."""

    name: str
    user: str
    epoch: int
    mode: str
    balancers: tuple[Balancer, ...]
    topology: Topology
    gate: Gate
    layout: Layout
    prepared_limit: int
    prepared_level: str = "extended"
    read_write_strategy: str = "conservative"
    two_phase: str = "auto"
    cross_shard_disabled: bool = False
    expanded_explain: bool = False
    query_timeout_s: float = float("inf")
    idle_in_transaction_timeout_s: float = float("inf")
    client_idle_timeout_s: float = float("inf")
    only: Pool | None = field(init=False)  # the one pool of a database without shards and replicas
    routed: bool = field(init=False)

    def __post_init__(self) -> None:
        self.routed = len(self.balancers) > 1
        first = self.balancers[0] if self.balancers else None
        alone = first is not None and not self.routed and first.primary is not None and not first.replicas
        self.only = first.primary if alone and first is not None else None

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
