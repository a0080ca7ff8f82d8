"""Plans over several shards, kept for a moment. ◆ A cache of a pure function: bounded, nobody can tell if it was hit.

Such a statement is asked about several times: by the fast gear, which only learns that it is not for one shard, by who
describes it, by who runs it. Whoever comes second finds what the first one was told.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from node.routing.catalog import Catalog
    from node.routing.hints import Hints
    from node.routing.outcome import Plan, Values
    from node.routing.statement import Statement
    from node.routing.topology import Topology

PLANS_MAX: Final = 256
PLANS_BYTES: Final = 4 << 20  # of texts and parameters; what is made of them may be as large again
PLAN_BYTES: Final = 1 << 20  # of one

_Key = tuple[object, ...]


class Remembered:
    """First in, first out. What is returned was made for exactly these arguments."""

    def __init__(
        self, plans_max: int = PLANS_MAX, limit_bytes: int = PLANS_BYTES, plan_bytes: int = PLAN_BYTES
    ) -> None:
        self.size = 0
        self._plans_max = plans_max
        self._limit_bytes = limit_bytes
        self._plan_bytes = plan_bytes
        self._plans: dict[_Key, tuple[int, Statement, Topology, weakref.ref[Catalog], Plan]] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def key(self, statement: Statement, values: Values, hints: Hints, topology: Topology) -> tuple[_Key, int] | None:
        """What the plan depends on beside map and catalog, and its bytes; None: too much to be kept."""
        if values.lexed is None:
            return None
        size = len(values.lexed.sql)
        given: tuple[object, ...] | None = None
        if statement.parameters and values.parameters is not None:
            size += sum(len(value) for value in values.parameters if value is not None)
            given = (tuple(values.parameters), tuple(values.formats), tuple(values.types))
        if size > self._plan_bytes:
            return None
        return (values.lexed.sql, values.part, topology.database, hints, given), size

    def find(self, key: _Key, statement: Statement, topology: Topology, catalog: Catalog) -> Plan | None:
        known = self._plans.get(key)
        if known is None or known[1] is not statement or known[2] is not topology or known[3]() is not catalog:
            return None
        return known[4]

    def keep(
        self, key: _Key, size: int, statement: Statement, topology: Topology, catalog: Catalog, plan: Plan
    ) -> None:
        replaced = self._plans.pop(key, None)
        if replaced is not None:
            self.size -= replaced[0]
        self._plans[key] = (size, statement, topology, weakref.ref(catalog), plan)
        self.size += size
        while len(self._plans) > self._plans_max or self.size > self._limit_bytes:
            oldest = self._plans.pop(next(iter(self._plans)))
            self.size -= oldest[0]
