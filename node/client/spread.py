"""What is known of a shape's reads over several shards: may they ride on lanes, and how many columns come back.

Single-shard reads have their weights elsewhere (client/weight.py): the part that one of many shards has in a statement
may be lighter than the whole, or heavier than a read of one key.

On whole connections such a read is as slow as the many backends make it that run at the same time, on lanes it would
not be. So of those runs the fastest lately counts. What it takes on lanes counts as it is, but only from SLOW_S on: up
to there a lane bears it, and how long it took is rather the machine's doing than its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.client.weight import LIGHT_S, WEIGHTS_MAX, Weight
from node.pool.lanes import SLOW_S

if TYPE_CHECKING:
    from node.client.shape import Shape
    from node.database import Layout
    from node.routing.catalog import Catalog

# Users with settings of their own (search_path) to which the columns of one shape are known.
COLUMNS_MAX = 16


class Spread:
    """One shape. `weight` is of its parts: the time of the slowest shard, the bytes of the widest one."""

    __slots__ = ("columns", "weight")

    def __init__(self, weight: Weight) -> None:
        self.weight = weight
        self.columns: dict[tuple[str, object], int] = {}

    def ran_alone(self, took_s: float, size: int) -> None:
        """On whole connections."""
        self.weight.ran_alone(took_s, size)

    def rode(self, took_s: float, size: int) -> None:
        self.weight.learn(took_s if took_s > SLOW_S else min(took_s, LIGHT_S), size)

    def seen(self, user: str, parameters: object, columns: int) -> None:
        """A shard returned so many columns of the client's own: by the tables that this user's search_path finds."""
        if len(self.columns) >= COLUMNS_MAX:
            self.columns.clear()
        self.columns[user, parameters] = columns


class Spreads:
    """All shapes under one catalogue: another one may mean other columns."""

    __slots__ = ("catalog", "known")

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.known: dict[Shape, Spread] = {}

    def of(self, shape: Shape) -> Spread:
        spread = self.known.get(shape)
        if spread is None:
            if len(self.known) >= WEIGHTS_MAX:
                self.known.clear()
            spread = self.known[shape] = Spread(Weight(shape.why_alone(self.catalog)))
        return spread


def spread_of(layout: Layout, shape: Shape) -> Spread:
    if layout.spreads is None:
        layout.spreads = Spreads(layout.catalog)
    return layout.spreads.of(shape)
